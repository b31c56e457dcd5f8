"""Float TFLite → TFLite in int8, w8 or fp16, through Google's ai-edge-quantizer."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement, feeds_for
from converters.library_calls import converting
from converters.options import ConvertOptions
from converters.tflite import check_tflite
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.layer_errors import LayerError

_TOOL = "ai-edge-quantizer"
_LOOPS = ("WHILE", "IF", "VAR_HANDLE", "CALL_ONCE")


class TfliteToTflite(Converter):
    """Inputs and outputs of an int8 result are int8 where the outermost operator quantizes, else float."""

    source = "tflite"
    target = "tflite"
    precisions = ("fp16", "w8", "int8")
    keeps_layers = True
    requires = (Requirement("ai_edge_quantizer", "tflite-quantizer"), Requirement("ai_edge_litert", "litert"))

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.tflite`; see `converters.base.Converter`."""
        from converters.tflite.quantizer_source import drop_unused, prepare
        from converters.tflite.writer import write_inline

        self.check(options, calibration)
        check_tflite(options)
        if options.io_dtype == "uint8":
            raise UsageError(f"{_TOOL} writes no uint8 inputs", "inputs and outputs: int8, float32")
        _check_operators(model)
        with converting(model, _TOOL), tempfile.TemporaryDirectory() as folder:
            content = prepare(model, Path(folder), options.shapes)
            result = Path(folder) / "quantized.tflite"
            result.write_bytes(_quantize(content, options, calibration))
            path = write_inline(result, out / f"{model.stem}.tflite")
            path.write_bytes(drop_unused(path))
        return ConversionOutput(model=path)

    def head_layers(self, model: Path, _result: Path) -> Sequence[tuple[str, ...]]:
        """See `converters.base.Converter`."""
        from converters.proof.tflite_origins import tflite_head_layers

        return tflite_head_layers(model)

    def layer_errors(
        self, model: Path, result: Path, _options: ConvertOptions, samples: Calibration
    ) -> Sequence[LayerError]:
        """See `converters.base.Converter`."""
        from converters.tflite.layer_errors import tflite_layers

        with converting(model, "LiteRT"):
            return tflite_layers(model, result, samples)


def _check_operators(model: Path) -> None:
    """Raise UsageError, naming the operator, for a file that the quantizer fails on."""
    from converters.tflite.reader import read_tflite

    found = {operator.name for graph in read_tflite(model).graphs for operator in graph.operators}
    loops = [name for name in _LOOPS if name in found]
    if loops:
        what = f"{model} contains {loops[0]}, which {_TOOL} cannot quantize"
        raise UsageError(what, "convert from the model that the file was made from (Keras, ONNX, PyTorch)")


def _quantize(content: bytes, options: ConvertOptions, calibration: Calibration | None) -> bytes:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    tool = quantizer.Quantizer(bytearray(content))
    names, granularity = qtyping.TFLOperationName, qtyping.QuantGranularity
    if options.precision == "int8":
        assert calibration is not None
        tool.add_static_config(".*", names.ALL_SUPPORTED, 8, 8)
        # Runtimes of the Edge TPU compiler's age read only the first scale of a dense layer.
        tool.add_static_config(".*", names.FULLY_CONNECTED, 8, 8, granularity.TENSORWISE)
        if options.keep:  # an operator is called by its outputs, separated by semicolons
            kept = "|".join(map(re.escape, options.keep))
            not_at_all = algorithm_manager.AlgorithmName.NO_QUANTIZE
            tool.update_quantization_recipe(f"(^|;)({kept})(;|$)", names.ALL_SUPPORTED, algorithm_key=not_at_all)
        return bytes(tool.quantize(_ranges(tool, content, calibration)).quantized_model)
    if options.precision == "w8":
        tool.add_weight_only_config(".*", names.ALL_SUPPORTED, 8)
        return bytes(tool.quantize().quantized_model)
    casting = algorithm_manager.AlgorithmName.FLOAT_CASTING
    for name in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED, names.CONV_2D_TRANSPOSE):
        tool.add_weight_only_config(".*", name, 16, granularity.TENSORWISE, casting)
    return bytes(tool.quantize().quantized_model)


def _ranges(tool: Any, content: bytes, calibration: Calibration) -> Any:
    """Calibrate with the true minimum and maximum of every tensor.

    The quantizer's own calibration is a moving average, which gives a tensor of one element an empty range.
    """
    import numpy as np

    from converters.tflite.interpreter import inspection_interpreter

    interpreter = inspection_interpreter(content)
    interpreter.allocate_tensors()
    key, signature = next(iter(interpreter.get_signature_list().items()))
    inputs = {one["name"]: one["index"] for one in interpreter.get_input_details()}
    tensors = [one for one in interpreter.get_tensor_details() if one["name"] and one["dtype"] == np.float32]
    found: dict[str, tuple[Any, Any]] = {}
    feeds = list(feeds_for(calibration, list(inputs)))
    for feed in feeds:
        for name, index in inputs.items():
            interpreter.set_tensor(index, feed[name])
        interpreter.invoke()
        for one in tensors:
            try:
                value = interpreter.get_tensor(one["index"])
            except ValueError:  # an output that nothing reads
                continue
            if value.size:
                low, high = found.get(one["name"], (value.min(), value.max()))
                found[one["name"]] = min(low, value.min()), max(high, value.max())
    known = dict(zip(signature["inputs"], inputs, strict=True))
    result = tool.calibrate({key: [{ours: feed[theirs] for ours, theirs in known.items()} for feed in feeds[:1]]})
    for name, range_ in result.items():
        if name in found:
            for side, value in zip(("min", "max"), found[name], strict=True):
                range_[side] = np.full_like(np.asarray(range_[side]), value)
    return result
