"""Will this model run on that device? Chooses the check that the device's accelerator asks for; writes nothing.

A device runs a model well where its accelerator takes most of it. Whether the whole is worth it, and what to change,
is in the `Report` that comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.check.report import Problem, Report
from converters.source import Source, open_source
from device_profiles.profiles import Profile
from edge.check_text import check_text
from edge.profiles import load_profile
from runtimes.artifact import Artifact
from runtimes.errors import RefusedError, UsageError
from runtimes.formats import format_of

_MYRIAD_2 = "Myriad 2,"  # the first stick's chip: the releases that edge converts with no longer run it
_DEEPEST = 32  # Keras models within models
# Processors that multiply int8 in one instruction, by the names that Linux gives their features.
_INT8_FEATURES = frozenset(("asimddp", "i8mm", "avx512_vnni", "avx_vnni"))


@dataclass(frozen=True)
class Checked:
    """The answer: the device's id and name, the report, and whether the device runs the model as it should.

    `runs` is False where the device refuses the model, or its accelerator gets less than half of the multiply-adds.
    """

    device: str
    device_name: str
    report: Report
    runs: bool

    def as_dict(self) -> dict[str, Any]:
        """What `edge check --json` prints."""
        return {"device": self.device, "runs": self.runs, **self.report.as_dict()}


def check(model: Path, device: str, memory: int | None = None, context: int | None = None) -> Checked:
    """Check a model file or artifact for a device or setup; `memory` in bytes and `context` are of language models.

    Raises InputError for a file that is broken, UsageError for a device that is not known, and RefusedError for a
    format that the device does not take and that cannot be looked into for it.
    """
    profile = load_profile(device)
    if format_of(Artifact.open(model).model) == "gguf":
        report = check_text(Artifact.open(model).model, profile, memory, context)
        return Checked(profile.id, profile.name, report, not report.refusals)
    if memory is not None or context is not None:
        raise UsageError("--memory and --context are for language models", "give a .gguf file, or leave them out")
    source = open_source(model)
    report = _worded(_report(source, profile), source, profile)
    runs = report.most_runs if report.accelerator else not report.refusals
    return Checked(profile.id, profile.name, report, runs)


def _worded(report: Report, source: Source, profile: Profile) -> Report:
    """The report with this model and device in the commands that it proposes."""
    refusals = [
        Problem(one.reason, one.fix.replace("MODEL", source.model.name).replace("DEVICE", profile.id))
        for one in report.refusals
    ]
    return replace(report, refusals=tuple(refusals))


def _report(source: Source, profile: Profile) -> Report:
    if profile.takes("edgetpu"):
        return _edgetpu(source, profile)
    if any("Movidius" in accelerator.name for accelerator in profile.accelerators):
        return _movidius(source, profile)
    if profile.takes("tensorrt") and source.model.suffix.lower() == ".onnx":
        return _tensorrt(source, profile)
    return _plain(source, profile)


def _edgetpu(source: Source, profile: Profile) -> Report:
    if source.format in ("tflite", "edgetpu"):
        from converters.edgetpu.mapping import check_edgetpu

        return check_edgetpu(source.model)
    from converters.edgetpu import sources

    if source.format == "onnx":
        return sources.check_onnx_for_edgetpu(source.model)
    if source.format == "keras" and source.model.suffix.lower() == ".keras":
        return sources.check_keras_layers(_keras_layers(source.model))
    raise _not_readable(source, profile, "the Edge TPU takes int8 TFLite", "edgetpu")


def _movidius(source: Source, profile: Profile) -> Report:
    known = profile.takes("openvino")
    note = f"supported last by {known.last_runtime}" if known and known.last_runtime else ""
    if source.format == "onnx":
        from converters.check.onnx_movidius import check_movidius

        report = check_movidius(source.model)
    elif source.format == "openvino":
        report = _ir(source.model)
    else:
        raise _not_readable(source, profile, "the stick takes OpenVINO's IR, made from ONNX", "onnx")
    ended = profile.refusal("openvino", "newest-runtime")
    if ended and any(_MYRIAD_2 in accelerator.name for accelerator in profile.accelerators):
        report = replace(report, refusals=(*report.refusals, Problem(ended.why, f"what works: {ended.instead}")))
    return replace(report, warnings=(*report.warnings, note)) if note else report


def _tensorrt(source: Source, profile: Profile) -> Report:
    from converters.check.onnx_tensorrt import TensorrtTarget, check_tensorrt
    from converters.tensorrt.releases import Release

    known = profile.takes("tensorrt")
    assert known is not None
    release = Release.of_board(known.max_opset)
    refused = {
        asked: Problem(refusal.why, f"what works: {refusal.instead}")
        for refusal in profile.refuses
        if refusal.format == "tensorrt"
        for asked in refusal.asked
    }
    is_shaped = source.format == "tensorrt"  # the board gets this graph, and nothing is written otherwise any more
    return check_tensorrt(source.model, TensorrtTarget(release.pair, release.max_opset, refused, not is_shaped))


def _plain(source: Source, profile: Profile) -> Report:
    from converters.check.plain import check_plain

    if profile.takes(source.format) is None:
        raise _not_readable(source, profile, f"it takes {', '.join(one.format for one in profile.formats)}", "onnx")
    report = check_plain(source.model, source.format)
    return replace(report, warnings=(*report.warnings, *_cpu_warnings(report, profile)))


def _cpu_warnings(report: Report, profile: Profile) -> Iterator[str]:
    if profile.takes("tensorrt"):
        yield "TensorRT builds engines from ONNX, and this is none: edge convert MODEL --to onnx, and check that"
    cpu = profile.cpu
    if report.extra.get("int8") and cpu is not None and not _INT8_FEATURES.intersection(cpu.features):
        yield (
            f"{cpu.name} has no int8 dot product: int8 is smaller, and not always faster than float (MobileNetV2 with"
            " ArmNN on a Raspberry Pi 3B: 795 ms against 130 ms, ARM-software/armnn issue 351); measure both"
        )


def _not_readable(source: Source, profile: Profile, takes: str, target: str) -> RefusedError:
    what = f"{profile.name} cannot run {source.model.name} as {source.format}: {takes}"
    way = f"--for {profile.id} --calibration PICTURES" if target == "edgetpu" else f"--to {target}"
    return RefusedError(what, f"convert first, then check the result: edge convert {source.model.name} {way}")


def _ir(path: Path) -> Report:
    from converters.check.openvino_ir import IrLayer, check_ir
    from edge.inspection.openvino import read
    from edge.inspection.openvino_xml import read_net

    parameters = read(path).parameter_bytes
    layers = [
        IrLayer(
            layer.type,
            layer.attributes.get("version", ""),
            layer.name,
            all(isinstance(size, int) for port in layer.outputs.values() for size in port.shape),
        )
        for layer in read_net(path).layers.values()
    ]
    # A model in fp16 keeps a few scalars in fp32.
    in_fp32 = parameters.get("float32", 0) > parameters.get("float16", 0)
    return check_ir(layers, in_fp32, sum(parameters.values()))


def _keras_layers(path: Path) -> Iterator[tuple[str, str, str]]:
    """(class, activation, name) of each layer in a `.keras` archive; no code of it is run."""
    from edge.inspection.archive import Archive, expecting

    with Archive(path) as archive:
        config = archive.json("config.json")
    with expecting(path, "config.json"):
        yield from _layers(config, _DEEPEST)


def _layers(model: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str, str]]:
    if depth == 0:
        raise ValueError(f"models are nested more than {_DEEPEST} deep")
    for layer in model["config"].get("layers", []):
        config = layer["config"]
        if "layers" in config:
            yield from _layers(layer, depth - 1)
        elif layer["class_name"] != "InputLayer":
            activation = config.get("activation") or ""
            word = activation if isinstance(activation, str) else json.dumps(activation.get("config", ""))
            yield str(layer["class_name"]), word.strip('"'), str(config.get("name", ""))
