"""ONNX → the files for building a TensorRT engine on a board: a prepared ONNX model, a build script, a Python builder.

An engine only works with the GPU model and the release that built it, so it is built on the board: `build.sh` uses the
board's trtexec, `build_engine.py` its tensorrt module. The graph is verified here with ONNX Runtime.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, ProxyModel, Requirement
from converters.library_calls import converting
from converters.onnx.graph import read_onnx
from converters.onnx.opset import WRITTEN_OPSET
from converters.onnx.quantized_graph import is_quantized
from converters.options import ConvertOptions, option
from converters.tensorrt.io_types import FloatInput, float_inputs, float_samples
from converters.tensorrt.releases import Release
from runtimes.errors import RefusedError, UsageError
from runtimes.standalone import tensorrt_build

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.onnx.float16_fit import Float16Fit
    from runtimes.artifact.json_fields import JsonObject

CACHE = "calibration.cache"
SCRIPT = "build.sh"
BUILDER = "build_engine.py"


class OnnxToTensorrt(Converter):
    """Writes `<model name>.onnx`, `build.sh` and `build_engine.py`; implicit int8 adds `calibration.cache`."""

    source = "onnx"
    target = "tensorrt"
    precisions = ("fp32", "fp16", "int8")
    requires = (Requirement("onnx", "table"), Requirement("onnxruntime"))
    reads_quantized = True

    @dataclass(frozen=True, kw_only=True)
    class Options(ConvertOptions):
        """The board's TensorRT release, and the int8 mode that it supports."""

        title = "for TensorRT"

        release: str | None = option(
            None, "the board's TensorRT release, if it differs from its profile", flag="--tensorrt", metavar="VERSION"
        )
        implicit: bool = option(False, "int8 by a calibration cache next to a float model, not by QDQ", implies="int8")

    def check_options(self, options: ConvertOptions) -> None:
        """Raise RefusedError or UsageError if the release or the precision does not support implicit int8."""
        if self.Options.of(options).implicit:
            Release.asked(options.release).check_implicit()
            if options.precision != "int8":
                what = f"--implicit is only for int8, not for {options.precision}"
                raise UsageError(what, "add --precision int8")

    def for_board(self, options: ConvertOptions, _release: str | None, max_opset: int | None) -> ConvertOptions:
        """Use the requested release, else the one that reads `max_opset`. Raises RefusedError for a newer opset."""
        release = Release.read(options.release) if options.release else Release.of_board(max_opset)
        if options.opset and options.opset > release.max_opset:
            what = f"{release} takes ONNX opset {release.max_opset} or lower, not {options.opset}"
            raise RefusedError(what, f"what works: --opset {release.max_opset}")
        return replace(options, release=release.text)

    def source_opset(self, options: ConvertOptions) -> int:
        """The newest opset that exporters write; this converter then upgrades the graph itself."""
        return min(options.opset or Release.asked(options.release).max_opset, WRITTEN_OPSET)

    def plan_notes(self, options: ConvertOptions) -> tuple[str, ...]:
        """The opset of the graph."""
        release = Release.asked(options.release)
        newest = f"ONNX opset {release.max_opset}, the newest that {release} reads"
        return (f"{newest}, or its own opset if it cannot be upgraded",)

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Prepare the graph for `options.release`; the default is the newest for Jetsons.

        Raises RefusedError, naming each node that the release cannot build; see `converters.base.Converter`.
        """
        from converters.tensorrt.graph_preparation import fix_shapes, refuse_unsupported, write

        options = own = self.Options.of(options)
        quantized = options.precision == "int8" and is_quantized(model)
        if not quantized:
            self.check(options, calibration)
        release = Release.asked(options.release)
        if own.implicit:
            release.check_implicit()
        refuse_unsupported(model, release)
        in_float = float_inputs(read_onnx(model), release.pair)
        calibration = float_samples(calibration, in_float)
        proto = fix_shapes(model, release, options.opset, options.batch, in_float)
        path = out / f"{model.stem}.onnx"
        if quantized:
            built = _prepare_quantized(model, proto, path, release)
        elif options.precision == "fp32":
            built = _PreparedModel(proxy=ProxyModel(write(proto, path), "onnx"))
        elif options.precision == "int8" and calibration is not None:
            with converting(model, "ONNX Runtime's quantizer"):
                built = _quantize(proto, path, release, own, calibration)
        else:
            built = _to_float16(model, proto, path, release, own, calibration)
        notes = (
            *refuse_unsupported(path, release, is_shaped=True),
            *_cast_notes(in_float),
            *built.notes,
            *_notes(path, built.proxy),
        )
        _write_builders(path, release, own, built.in_half)
        return ConversionOutput(
            model=path,
            proxy=built.proxy,
            facts={**_facts(release, own, built.in_half), **_cast_facts(in_float), **built.facts},
            notes=notes,
            remaining_commands=_remaining_commands(release),
            device_model=built.device_model,
        )


@dataclass(frozen=True, kw_only=True)
class _PreparedModel:
    """The graph of one precision; `in_half`: whether the builder may compute layers in fp16."""

    proxy: ProxyModel | None
    device_model: ProxyModel | None = None
    in_half: bool = False
    facts: JsonObject = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _to_float16(
    model: Path,
    proto: Any,
    path: Path,
    release: Release,
    options: OnnxToTensorrt.Options,
    samples: Calibration | None,
) -> _PreparedModel:
    """Use the builder's fp16 flag, or convert the graph for releases without that flag.

    The shipped graph is the one that was verified: with its masks clamped, and rounded like on the device.
    """
    from converters.onnx.float16_fit import fit_to_float16, to_float16
    from converters.tensorrt.graph_preparation import write

    fit = fit_to_float16(model, proto, samples)
    fit.check(model)
    device_model = fit.device_model(options.scratch, path.name)
    if release.is_strongly_typed:
        shipped = ProxyModel(write(to_float16(proto), path), "onnx")
        return _PreparedModel(proxy=shipped, device_model=device_model, facts=fit.facts, notes=fit.notes)
    write(proto, path)
    return _PreparedModel(proxy=device_model, in_half=True, facts=fit.facts, notes=fit.notes)


def _prepare_quantized(model: Path, proto: Any, path: Path, release: Release) -> _PreparedModel:
    """Keep the scales of a graph that is int8 already, in the symmetric form that TensorRT reads."""
    from converters.onnx.float16_fit import fit_to_float16
    from converters.tensorrt.graph_preparation import write
    from converters.tensorrt.quantized_source import symmetric_qdq

    with converting(model, "the conversion to symmetric int8"):
        symmetric = symmetric_qdq(proto)
    known = _PreparedModel(proxy=None)
    if not release.is_strongly_typed:
        known = _other_layers(fit_to_float16(model, symmetric, None))
    return replace(known, proxy=ProxyModel(write(symmetric, path), "onnx"))


def _quantize(
    proto: Any, path: Path, release: Release, options: OnnxToTensorrt.Options, calibration: Calibration
) -> _PreparedModel:
    """Write scales into the graph, or for implicit int8 into a cache, verified by a QDQ graph with the same ranges."""
    from converters.onnx.float16_fit import fit_to_float16
    from converters.tensorrt.graph_preparation import write
    from converters.tensorrt.quantization import (
        cache_text,
        input_names,
        largest_values,
        prepare_for_quantizer,
        with_scales,
    )

    names = input_names(proto)
    fit = None if release.is_strongly_typed else fit_to_float16(path, proto, calibration)  # of layers left in float
    found = _PreparedModel(proxy=None) if fit is None else _other_layers(fit)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        float_model = prepare_for_quantizer(write(proto, scratch / "float.onnx"), scratch)
        with_qdq = with_scales(float_model, scratch / "qdq.onnx", calibration, names)
        if not options.implicit:
            return replace(found, proxy=ProxyModel(write(with_qdq, path), "onnx"))
        largest = largest_values(scratch / "float.onnx", scratch, calibration, names)
    path.with_name(CACHE).write_text(cache_text(largest, release), encoding="ascii")
    write(proto, path)
    return replace(found, proxy=_write_proxy(with_qdq, path, options))


def _other_layers(fit: Float16Fit) -> _PreparedModel:
    """Return whether the layers that are not quantized may be computed in fp16; if not, they stay in fp32."""
    if not fit.beyond:
        return _PreparedModel(proxy=None, in_half=True, facts=fit.facts, notes=fit.notes)
    note = f"layers that are not int8 are computed in fp32, not in fp16: {fit.text()}"
    return _PreparedModel(proxy=None, facts=fit.facts, notes=(*fit.notes, note))


def _write_proxy(proto: Any, path: Path, options: ConvertOptions) -> ProxyModel | None:
    """Write a stand-in, which is not part of the result."""
    from converters.tensorrt.graph_preparation import write

    if options.scratch is None:
        return None
    folder = Path(options.scratch) / "stand-in"
    folder.mkdir(parents=True, exist_ok=True)
    return ProxyModel(write(proto, folder / path.name), "onnx")


def _notes(path: Path, proxy: ProxyModel | None) -> tuple[str, ...]:
    if proxy is None or proxy.model == path:
        return ()
    return ("verified with every layer rounded that TensorRT may compute in fp16: it chooses the layers on the board",)


def _cast_notes(inputs: tuple[FloatInput, ...]) -> tuple[str, ...]:
    return tuple(
        f"the input {one} becomes float32, because TensorRT does not take its type: the host casts its values"
        for one in inputs
    )


def _cast_facts(inputs: tuple[FloatInput, ...]) -> JsonObject:
    return {"cast_on_host": {one.name: [one.dtype, "float32"] for one in inputs}} if inputs else {}


def _write_builders(path: Path, release: Release, options: OnnxToTensorrt.Options, in_half: bool) -> None:
    cache = CACHE if options.implicit else None
    place = path.with_name(SCRIPT)
    place.write_text(script(path.name, release, options.precision, cache, in_half), encoding="utf-8")
    place.chmod(0o755)
    shutil.copyfile(tensorrt_build.__file__, path.with_name(BUILDER))


def _facts(release: Release, options: OnnxToTensorrt.Options, in_half: bool) -> JsonObject:
    known: JsonObject = {"release": release.text, "cache": CACHE if options.implicit else None}
    if options.precision == "int8" and not in_half and not release.is_strongly_typed:
        known["float"] = "fp32"  # of the layers that are not int8
    return {"tensorrt": known}


def _remaining_commands(release: Release) -> tuple[str, ...]:
    return (
        f"the engine is built on the board, with {release}: copy the folder there and run sh {SCRIPT}",
        f"or python3 {BUILDER}, which keeps one engine for each GPU, CUDA and TensorRT",
    )


_POOLS = (8, 4)  # the first release whose trtexec says --memPoolSize instead of --workspace


_WORKSPACE_MIB = 512  # leaves enough to a Jetson Nano, whose GPU and CPU share 4 GB


_TEXT = """\
#!/bin/sh
# Builds {engine} with {release}, on the machine that will run it: an engine only works there.
# Further options of trtexec may follow: sh build.sh --useCudaGraph
set -eu
cd "$(dirname "$0")"
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
  echo "trtexec is missing; JetPack installs it: sudo apt-get install libnvinfer-bin" >&2
  exit 1
fi
exec "$trtexec" {options} "$@"
"""


def script(model: str, release: Release, precision: str, cache: str | None, in_half: bool = True) -> str:
    """Return the script for the model file `model`; `cache` is the calibration cache next to it, if any.

    With `in_half` False, layers that are not int8 stay in fp32.
    """
    engine = str(PurePath(model).with_suffix(".engine"))
    precisions = [flag for flag in _precision(release, precision, cache) if in_half or flag != "--fp16"]
    options = [f"--onnx={model}", f"--saveEngine={engine}", *precisions, _workspace(release)]
    return _TEXT.format(engine=engine, release=release, options=" ".join(map(shlex.quote, options)))


def _precision(release: Release, precision: str, cache: str | None) -> list[str]:
    """Return trtexec's precision flags. int8 also allows fp16 for faster layers; the newest releases have no flags."""
    if release.is_strongly_typed:
        return []
    flags = {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[precision]
    return [*flags, *([f"--calib={cache}"] if cache else [])]


def _workspace(release: Release) -> str:
    return f"--workspace={_WORKSPACE_MIB}" if release.pair < _POOLS else f"--memPoolSize=workspace:{_WORKSPACE_MIB}"
