"""TFLite → OpenVINO IR, which OpenVINO reads itself: fp32, int8 by NNCF, and files that are quantized already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput
from converters.onnx_to_openvino import OnnxToOpenvino
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration


class TfliteToOpenvino(OnnxToOpenvino):
    """Writes `<model name>.xml` in the layout of the source. A quantized file keeps its own scales."""

    source = "tflite"
    precisions = ("fp32", "int8")  # fp16 goes through ONNX, on which its range is checked
    keeps_quantized = ("int8", "w8")

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write the IR; see `converters.base.Converter`."""
        from converters.tflite.reader import is_quantized

        if model.is_file() and is_quantized(model):
            options, calibration = replace(options, precision="fp32"), None
        return super().convert(model, out, options, calibration)

    def _has_integer_operators(self, _model: Path) -> bool:
        """Return False: OpenVINO reads quantised TFLite without rewriting."""
        return False
