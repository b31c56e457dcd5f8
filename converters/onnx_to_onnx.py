"""ONNX fp32 → ONNX fp16, w8 (int8 weights), or int8 (QDQ) by ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from converters.layers_onnx import onnx_layers
from converters.onnx_half import to_half
from converters.onnx_tidy import opset_of
from converters.onnx_weights import to_int8_weights
from converters.quiet import converting, loading
from converters.steps import StepOptions, check_options, feeds_for
from runtimes.arrays import Arrays
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from converters.blame import Layer
    from converters.calibration import Calibration

_OLDEST_OPSET = 13  # the first whose QuantizeLinear has an axis


class Step:
    """Inputs and outputs stay float32; fp16 can have them in float16. int8: weights per channel, uint8 else."""

    source = "onnx"
    target = "onnx"
    precisions = ("fp16", "w8", "int8")
    requires = ("onnxruntime", "onnx")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        io_dtype = _io_dtype(options)
        names = _checked(model, options)
        path = out / f"{model.stem}.onnx"
        if options.precision == "fp16":
            with converting(model, "ONNX Runtime's fp16 converter"):
                path.write_bytes(to_half(model, calibration, io_dtype).SerializeToString(deterministic=True))
            return path
        if options.precision == "w8":
            with converting(model, "the conversion to int8 weights"):
                path.write_bytes(_with_int8_weights(model))
            return path
        assert calibration is not None
        with converting(model, "ONNX Runtime's quantiser"), tempfile.TemporaryDirectory() as folder:
            prepared = _prepared(model, Path(folder))
            _quantise(prepared, path, calibration, names, _named(prepared, options.keep))
            _drop_unused_domains(path)
        return path

    def layer_errors(self, model: Path, result: Path, _options: StepOptions, samples: Calibration) -> list[Layer]:
        """See `converters.blame.KeepsLayers`."""
        with converting(model, "ONNX Runtime"), tempfile.TemporaryDirectory() as folder:
            return onnx_layers(_prepared(model, Path(folder)), result, samples)


def _io_dtype(options: StepOptions) -> str:
    known = ("float32", "float16") if options.precision == "fp16" else ("float32",)
    if options.io_dtype not in (None, *known):
        what = f"ONNX {options.precision} cannot take {options.io_dtype}"
        raise UsageError(what, f"inputs and outputs: {', '.join(known)}")
    return options.io_dtype or "float32"


def _with_int8_weights(model: Path) -> bytes:
    import onnx

    proto = onnx.load(model)
    to_int8_weights(proto)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _checked(model: Path, options: StepOptions) -> list[str]:
    """The names of the model's inputs; UsageError when it has another opset than the one that was asked for."""
    with loading(model, "ONNX"):
        import onnx

        source = onnx.load(model, load_external_data=False)
        found = opset_of(source)
        constants = {tensor.name for tensor in source.graph.initializer}  # old files list them as inputs too
    if options.opset not in (None, found):
        raise UsageError(f"{model} has opset {found}, not {options.opset}", "convert it from its source once more")
    if found < _OLDEST_OPSET and options.precision != "fp16":
        hint = f"convert it from its source with opset {_OLDEST_OPSET} or later"
        raise UsageError(f"{model} has opset {found}: int8 per channel needs {_OLDEST_OPSET}", hint)
    return [value.name for value in source.graph.input if value.name not in constants]


def _prepared(model: Path, folder: Path) -> Path:
    """The model with shapes inferred and BatchNorm folded, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    return prepared


def _named(prepared: Path, layers: tuple[str, ...]) -> list[str]:
    """The names of the nodes that write the tensors `layers`, given to those that have none."""
    if not layers:
        return []
    import onnx

    model = onnx.load(prepared)
    kept = [node for node in model.graph.node if node.output and node.output[0] in layers]
    for node in kept:
        node.name = node.output[0]
    onnx.save(model, prepared)
    return [node.name for node in kept]


def _quantise(model: Path, path: Path, calibration: Calibration, names: list[str], kept: list[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            self._feeds = feeds_for(calibration, names)

        def get_next(self) -> Arrays | None:
            return next(self._feeds, None)

    quantize_static(
        model,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )


def _drop_unused_domains(path: Path) -> None:
    """ONNX Runtime lists all of its own operator sets; other engines refuse those that they do not know."""
    import onnx

    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))
