"""TFLite → OpenVINO IR, which OpenVINO reads itself: fp32, int8 by NNCF, and files that are quantized already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput
from converters.library_calls import no_telemetry
from converters.onnx_to_openvino import OnnxToOpenvino, read_network, save_network
from converters.options import ConvertOptions
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

_IN_TWO_STEPS = "what works: --precision fp16, or --to onnx, and from that artifact --to openvino --precision int8"


class TfliteToOpenvino(OnnxToOpenvino):
    """Writes `<model name>.xml` in the layout of the source. A quantized file keeps its own scales.

    What the source keeps in variables becomes inputs and outputs.
    """

    source = "tflite"
    precisions = ("fp32", "int8")  # fp16 goes through ONNX, on which its range is checked
    keeps_quantized = ("int8", "w8")

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write the IR; see `converters.base.Converter`."""
        from converters.tflite.reader import is_quantized

        if not model.is_file():
            return super().convert(model, out, options, calibration)
        from converters.tflite.states import with_explicit_states

        model, states = with_explicit_states(model, options)
        if is_quantized(model):
            output = self._with_own_scales(model, out, options)
        elif states and options.precision == "int8":
            raise UsageError(f"{model.name} keeps a state, whose values are not known for calibration", _IN_TWO_STEPS)
        else:
            output = super().convert(model, out, options, calibration)
        return replace(output, states=states)

    def _with_own_scales(self, model: Path, out: Path, options: ConvertOptions) -> ConversionOutput:
        """Convert a file that is quantized already, and keep the scales of its inputs and outputs."""
        from converters.tflite.reader import read_tflite
        from runtimes.engines.openvino import write_quantization

        self.check(replace(options, precision="fp32"), None)
        no_telemetry()
        main = read_tflite(model).graphs[0]
        network = read_network(model, options)
        write_quantization(network, [main.tensors[place].spec for place in (*main.inputs, *main.outputs)])
        return ConversionOutput(
            model=save_network(network, out / f"{model.stem}.xml", in_float16=False, source=".tflite")
        )

    def _has_integer_operators(self, _model: Path) -> bool:
        """Return False: OpenVINO reads quantized TFLite without rewriting."""
        return False
