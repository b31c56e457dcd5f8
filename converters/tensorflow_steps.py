"""What the steps from Keras and SavedModel are alike in: all but how the model becomes one function."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from converters.layers_tflite import tflite_layers
from converters.onnx_opset import check_opset, wanted_opset
from converters.quiet import converting
from converters.steps import StepOptions, check_options
from converters.tensorflow_function import Traced, to_onnx, to_tflite
from converters.tflite_options import check_tflite

if TYPE_CHECKING:
    from converters.blame import Layer
    from converters.calibration import Calibration

# JetPack 5 and later, OpenVINO and ONNX Runtime read it; JetPack 4.6 needs 13.
DEFAULT_OPSET = 17
_OLDEST, _NEWEST = 11, 18  # tf2onnx 1.17 writes no newer one


class TraceStep(ABC):
    """A step whose source becomes one TensorFlow function."""

    source: str
    target: str
    precisions: tuple[str, ...]
    requires: tuple[str, ...]

    @abstractmethod
    def traced(self, model: Path, batch: int | None) -> Traced:
        """The model as a function of fixed shapes, its batch `batch` or, None, free; InputError where it is broken."""


class OnnxStep(TraceStep):
    """To ONNX through tf2onnx; `batch` None leaves the batch free."""

    target = "onnx"
    precisions = ("fp32",)

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        opset = wanted_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, "tf2onnx")
        source = self.traced(model, options.batch)
        with converting(model, "tf2onnx"):
            proto = to_onnx(source, opset)
        check_opset(proto, opset, "tf2onnx")
        path = out / f"{model.stem}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return path


class TfliteStep(TraceStep):
    """To TFLite, static shapes. A full int8 model takes and gives `io_dtype`, uint8 by default, as pictures are."""

    target = "tflite"
    precisions = ("fp32", "fp16", "w8", "int8")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.tflite`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        check_tflite(options)
        source = self.traced(model, options.batch)
        with converting(model, "TensorFlow's TFLite converter"):
            content = to_tflite(source, options, calibration)
        path = out / f"{model.stem}.tflite"
        path.write_bytes(content)
        return path

    def layer_errors(self, model: Path, result: Path, options: StepOptions, samples: Calibration) -> list[Layer]:
        """See `converters.blame.KeepsLayers`."""
        with tempfile.TemporaryDirectory() as folder:
            plain = self.convert(model, Path(folder), StepOptions(batch=options.batch), None)
            with converting(model, "LiteRT"):
                return tflite_layers(plain, result, samples)
