"""A converter from ONNX to `.null` files, whose engine answers with its inputs: right for one model only."""

from __future__ import annotations

from pathlib import Path

from converters.base import ConversionOutput, Converter, Requirement
from converters.calibration.dataset import Calibration
from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from runtimes.errors import InputError


class OnnxToNull(Converter):
    """Writes the name of the graph."""

    source, target = "onnx", "null"
    precisions = ("fp32",)
    requires = (Requirement("onnx", "table"),)

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Convert a graph of a single Identity node."""
        self.check(options, calibration)
        import onnx

        try:
            with suppress_output():
                graph = onnx.load(model).graph
        except Exception as error:  # protobuf's own kinds of errors
            raise InputError(f"{model} is not an ONNX model: {type(error).__name__}", "give an .onnx file") from error
        if [node.op_type for node in graph.node] != ["Identity"]:
            raise InputError(f"{model} does more than this example can", "give a graph of one Identity node")
        result = out / f"{model.stem}.null"
        result.write_text(graph.name, encoding="utf-8")
        return ConversionOutput(model=result)
