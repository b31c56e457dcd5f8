"""Check whether a model runs on a device, with the check of the device's accelerator. Nothing is written.

A device runs a model well if its accelerator runs most of it. The `Report` lists the nodes that it runs, and fixes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.check.report import HOST, CompatibilityIssue, Node, Report
from converters.onnx.fixed_shapes import is_plain, write_plain, write_with_shapes
from converters.onnx.graph import read_onnx
from converters.onnx.shape_inference import macs_of_nodes
from converters.sources.artifact import open_source
from converters.sources.source import OpenedSource
from converters.tflite.macs import macs
from converters.tflite.op import graph_ops
from converters.tflite.reader import read_tflite
from device_profiles.profiles import Profile
from edge.compatibility.language_model import check_text
from edge.inspection import inspect
from edge.machine.this_machine import load_profile
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EngineMissingError, RefusedError, UsageError
from runtimes.model_files.detect import FORMATS, format_of, is_language_model, layout_of
from runtimes.shapes import with_shapes

_MYRIAD_2 = "Myriad 2,"  # the chip of the first stick, which the releases that edge converts with no longer support
_DEEPEST = 32  # levels of nested Keras models
# CPU features with an int8 dot product, as Linux names them.
_INT8_FEATURES = frozenset(("asimddp", "i8mm", "avx512_vnni", "avx_vnni"))


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a check.

    device: The device's id.
    device_name: The device's name.
    report: What was found, node by node.
    runs: False if the device refuses the model, or if its accelerator runs less than half of the multiply-adds.
    """

    device: str
    device_name: str
    report: Report
    runs: bool

    def to_json(self) -> JsonObject:
        """Return the object that `edge check --json` prints."""
        return {"device": self.device, "runs": self.runs, **self.report.to_json()}


def check(
    model: Path, device: str, memory: int | None = None, context: int | None = None, shapes: Sequence[str] = ()
) -> CheckResult:
    """Check a model file or artifact for a device or setup.

    memory: The device's memory in bytes; for language models only.
    context: The context length in tokens; for language models only.
    shapes: Sizes for free axes, see `runtimes.shapes`.

    Raises InputError if the file is broken, UsageError for an unknown device, and RefusedError if the device does not
    take the format and edge cannot check the model in it.
    """
    profile = load_profile(device)
    if is_language_model(format_of(Artifact.open(model).model)):
        report = check_text(Artifact.open(model).model, profile, memory, context)
        return CheckResult(device=profile.id, device_name=profile.name, report=report, runs=not report.refusals)
    if memory is not None or context is not None:
        raise UsageError("--memory and --context are for language models", "give a .gguf file, or leave them out")
    source = open_source(model)
    with tempfile.TemporaryDirectory(prefix="edge-check-") as folder:
        plain = _without_functions(source, Path(folder) / "plain")
        shaped = _with_shapes(plain, shapes, Path(folder)) if shapes else plain
        report = _with_names(_report(shaped, profile), source, profile)
    runs = report.most_runs if report.accelerator else not report.refusals
    return CheckResult(device=profile.id, device_name=profile.name, report=report, runs=runs)


def _without_functions(source: OpenedSource, folder: Path) -> OpenedSource:
    """Return the source as it is converted: an ONNX model with the nodes of its local functions."""
    if source.format != "onnx" or is_plain(source.model):
        return source
    path = write_plain(source.model, folder)
    return replace(source, artifact=Artifact(folder, replace(source.artifact.manifest, model=path.name)))


def _with_shapes(source: OpenedSource, shapes: Sequence[str], folder: Path) -> OpenedSource:
    """Return the source with its free axes set: a copy of an ONNX model; of other formats only operators are checked.

    Raises UsageError for shapes that do not fit.
    """
    if source.format != "onnx":
        with_shapes(inspect(source.artifact).inputs, shapes)
        return source
    path = write_with_shapes(source.model, shapes, folder)
    return replace(source, artifact=Artifact(folder, replace(source.artifact.manifest, model=path.name)))


def _with_names(report: Report, source: OpenedSource, profile: Profile) -> Report:
    """Insert the names of the model and the device into the commands that the report suggests."""
    refusals = [
        CompatibilityIssue(one.reason, one.fix.replace("MODEL", source.model.name).replace("DEVICE", profile.id))
        for one in report.refusals
    ]
    return replace(report, refusals=tuple(refusals))


def _report(source: OpenedSource, profile: Profile) -> Report:
    if profile.takes("edgetpu"):
        return _edgetpu(source, profile)
    if any("Movidius" in accelerator.name for accelerator in profile.accelerators):
        return _movidius(source, profile)
    if profile.takes("tensorrt") and source.model.suffix.lower() == ".onnx":
        return _tensorrt(source, profile)
    return _plain(source, profile)


def _edgetpu(source: OpenedSource, profile: Profile) -> Report:
    if layout_of(source.format) == "tflite":
        from converters.edgetpu.mapping import check_edgetpu

        return check_edgetpu(source.model)
    from converters.edgetpu import before_quantization

    if source.format == "onnx":
        return before_quantization.check_onnx_for_edgetpu(source.model)
    if source.format == "keras" and source.model.suffix.lower() == ".keras":
        return before_quantization.check_keras_layers(_keras_layers(source.model))
    raise _not_readable(source, profile, "the Edge TPU takes int8 TFLite", "edgetpu", "int8")


def _movidius(source: OpenedSource, profile: Profile) -> Report:
    known = profile.takes("openvino")
    note = f"supported last by {known.last_runtime}" if known and known.last_runtime else ""
    if source.format == "onnx":
        from converters.openvino.movidius_check_onnx import check_movidius

        report = check_movidius(source.model)
    elif source.format == "openvino":
        report = _ir(source.model)
    else:
        raise _not_readable(source, profile, "the stick takes OpenVINO IR, which is converted from ONNX", "onnx")
    unsupported = profile.refusal("openvino", "newest-runtime")
    if unsupported and any(_MYRIAD_2 in accelerator.name for accelerator in profile.accelerators):
        report = replace(
            report,
            refusals=(*report.refusals, CompatibilityIssue(unsupported.why, f"what works: {unsupported.instead}")),
        )
    return replace(report, warnings=(*report.warnings, note)) if note else report


def _tensorrt(source: OpenedSource, profile: Profile) -> Report:
    from converters.tensorrt.compatibility import TensorrtTarget, check_tensorrt
    from converters.tensorrt.releases import Release

    known = profile.takes("tensorrt")
    assert known is not None
    release = Release.of_board(known.max_opset)
    refused = {
        asked: CompatibilityIssue(refusal.why, f"what works: {refusal.instead}")
        for refusal in profile.refuses
        if refusal.format == "tensorrt"
        for asked in refusal.asked
    }
    is_shaped = FORMATS[source.format].is_compiled  # the board gets exactly this graph, without further conversion
    target = TensorrtTarget(
        release=release.pair,
        max_opset=release.max_opset,
        refused=refused,
        rewrites=not is_shaped,
        requantizes=not is_shaped,
    )
    return check_tensorrt(source.model, target)


def _plain(source: OpenedSource, profile: Profile) -> Report:
    if profile.takes(source.format) is None:
        raise _not_readable(source, profile, f"it takes {', '.join(one.format for one in profile.formats)}", "onnx")
    if source.format not in _GRAPHS:
        with suppress(UsageError, EngineMissingError):
            inspect(source.artifact)  # of which only the format is checked: raises InputError if it is broken
    report = check_plain(source.model, source.format)
    return replace(report, warnings=(*report.warnings, *_cpu_warnings(report, profile)))


def _cpu_warnings(report: Report, profile: Profile) -> Iterator[str]:
    if profile.takes("tensorrt"):
        yield "TensorRT builds engines from ONNX only: edge convert MODEL --to onnx, and check the result"
    cpu = profile.cpu
    if report.extra.get("int8") and cpu is not None and not _INT8_FEATURES.intersection(cpu.features):
        yield (
            f"{cpu.name} has no int8 dot product: int8 is smaller, but not always faster than float (MobileNetV2 with"
            " ArmNN on a Raspberry Pi 3B: 795 ms against 130 ms, ARM-software/armnn issue 351); measure both"
        )


def _not_readable(
    source: OpenedSource, profile: Profile, takes: str, target: str, precision: str = "fp32"
) -> RefusedError:
    """Return a refusal that suggests the conversion to `target` in `precision`, if there is one."""
    what = f"{profile.name} cannot run {source.model.name} as {source.format}: {takes}"
    if not _leads_to(source, target, precision):
        return RefusedError(what, "start from the model that this file was made from: this file cannot be converted")
    options = f"--for {profile.id} --calibration PICTURES" if precision == "int8" else f"--to {target}"
    return RefusedError(what, f"convert first, then check the result: edge convert {source.model.name} {options}")


def _leads_to(source: OpenedSource, target: str, precision: str) -> bool:
    """Return whether `edge convert` would take the source to `target`, so that no refused command is suggested.

    Raises InputError if the file is broken.
    """
    from converters.registry import all_converters
    from edge.conversion.planning import QUANTIZED, find_route, with_inspected_specs

    known = with_inspected_specs(source)
    precision = known.precision if precision == "fp32" and known.precision in QUANTIZED else precision
    return find_route(known, target, precision, all_converters()) is not None


def _ir(path: Path) -> Report:
    from converters.openvino.movidius_check_ir import IrLayer, check_ir
    from edge.inspection.openvino import read
    from edge.inspection.openvino_xml import read_net

    found = read(path)
    layers = [
        IrLayer(
            type=layer.type,
            version=layer.attributes.get("version", ""),
            name=layer.name,
            is_static=all(isinstance(size, int) for port in layer.outputs.values() for size in port.shape),
        )
        for layer in read_net(path).layers.values()
    ]
    # By most of its bytes: a model in fp16 keeps a few scalars in fp32.
    return check_ir(layers, found.precision, sum(found.parameter_bytes.values()))


def _keras_layers(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (class, activation, name) of each layer in a `.keras` archive, without running any of its code."""
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


def check_plain(path: Path, model_format: str) -> Report:
    """Report every node as running on the host; only tflite and onnx are reported with their nodes."""
    read = _GRAPHS.get(model_format)
    return read(path) if read is not None else Report(accelerator="", nodes=())


def _tflite(path: Path) -> Report:
    graph = read_tflite(path).graphs[0]
    ops = graph_ops(graph)
    nodes = tuple(
        Node(index=index, op=op.type, name=op.name, placement=HOST, macs=macs(op)) for index, op in enumerate(ops)
    )
    int8 = any(tensor.spec.dtype in ("int8", "uint8") for op in ops for tensor in op.outputs)
    return Report(
        accelerator="",
        nodes=nodes,
        parameter_bytes=sum(one.constant_bytes for one in graph.tensors),
        extra={"int8": int8},
    )


def _onnx(path: Path) -> Report:
    graph = read_onnx(path)
    counts = macs_of_nodes(graph) or [0] * len(graph.nodes)
    rows = enumerate(zip(graph.nodes, counts, strict=True))
    nodes = tuple(
        Node(index=index, op=node.op, name=node.name, placement=HOST, macs=count) for index, (node, count) in rows
    )
    int8 = any(node.op.startswith(("QLinear", "QuantizeLinear")) or node.op.endswith("Integer") for node in graph.nodes)
    return Report(accelerator="", nodes=nodes, parameter_bytes=graph.parameter_bytes, extra={"int8": int8})


# Format → the function that reports the nodes of its graphs.
_GRAPHS: Mapping[str, Callable[[Path], Report]] = {"onnx": _onnx, "tflite": _tflite}
