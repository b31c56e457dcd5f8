"""ONNX fp32 → ONNX int8 (QDQ) by ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from converters.quiet import converting, loading
from converters.steps import StepOptions, check_options, feeds_for
from runtimes.arrays import Arrays

if TYPE_CHECKING:
    from converters.calibration import Calibration


class Step:
    """Weights int8 per channel, activations uint8; inputs and outputs stay float32."""

    source = "onnx"
    target = "onnx"
    precisions = ("int8",)
    requires = ("onnxruntime", "onnx")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        assert calibration is not None
        with loading(model, "ONNX"):
            import onnx

            names = [value.name for value in onnx.load(model, load_external_data=False).graph.input]
        path = out / f"{model.stem}.onnx"
        with converting(model, "ONNX Runtime's quantiser"), tempfile.TemporaryDirectory() as folder:
            prepared = _prepared(model, Path(folder))
            _quantise(prepared, path, calibration, names)
        return path


def _prepared(model: Path, folder: Path) -> Path:
    """The model with shapes inferred and BatchNorm folded, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    return prepared


def _quantise(model: Path, path: Path, calibration: Calibration, names: list[str]) -> None:
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
    )
