"""TensorFlow SavedModel → ONNX through tf2onnx: fp32, the opset that was asked for, the layout of the source."""

from __future__ import annotations

from pathlib import Path

from converters.savedmodel_source import traced
from converters.tensorflow_function import Traced
from converters.tensorflow_steps import OnnxStep


class Step(OnnxStep):
    """Inputs and outputs bear the names of the serving signature."""

    source = "savedmodel"
    requires = ("tensorflow", "tf2onnx", "onnx")

    def traced(self, model: Path, batch: int | None) -> Traced:
        """See `TraceStep`."""
        return traced(model, batch)
