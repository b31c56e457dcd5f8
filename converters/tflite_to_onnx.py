"""TFLite → ONNX through tf2onnx: fp32, and quantized files as QDQ with their own scales."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement
from converters.library_calls import converting
from converters.onnx.opset import check_opset, wanted_opset
from converters.options import ConvertOptions
from runtimes.errors import EngineError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

DEFAULT_OPSET = 17
_OLDEST, _NEWEST = 11, 18  # tf2onnx 1.17 cannot write newer opsets
_INSTEAD = "what works: --to openvino reads TFLite itself; or convert from the model that the file was made from"


class TfliteToOnnx(Converter):
    """Inputs and outputs keep the names and the layout of the source."""

    source = "tflite"
    target = "onnx"
    precisions = ("fp32",)
    keeps_quantized = ("int8", "w8")
    requires = (Requirement("tensorflow"), Requirement("tf2onnx", "table"), Requirement("onnx", "table"))

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, _calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.onnx`; see `converters.base.Converter`."""
        if options.precision not in self.keeps_quantized:
            self.check_precision(options.precision)
        self.check_libraries()
        from converters.tflite.reader import read_tflite

        graphs = read_tflite(model).graphs
        opset = wanted_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, "tf2onnx")
        with converting(model, "tf2onnx"):
            import tf2onnx

            from converters.onnx.cleanup import tidy

            proto, _ = tf2onnx.convert.from_tflite(str(model), opset=opset)
            _check_operators(proto, {operator.name for graph in graphs for operator in graph.operators}, model)
            tidy(proto)
        check_opset(proto, opset, "tf2onnx")
        path = out / f"{model.stem}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return ConversionOutput(model=path)


def _check_operators(proto: Any, known: set[str], model: Path) -> None:
    """Raise EngineError, naming the operator, for one that tf2onnx left as it was in the TFLite file."""
    left = next((node for node in proto.graph.node if node.op_type.removeprefix("TFL_") in known), None)
    if left is not None:
        kind = left.op_type.removeprefix("TFL_")
        raise EngineError(f"{model}: tf2onnx has no ONNX operator for {kind} (node '{left.name}')", _INSTEAD)
