"""Keras → ONNX through tf2onnx: fp32, the opset that was asked for, the layout of the source (one transpose inside)."""

from __future__ import annotations

from pathlib import Path

from converters.keras_source import traced
from converters.tensorflow_function import Traced
from converters.tensorflow_steps import OnnxStep


class Step(OnnxStep):
    """Inputs and outputs bear Keras' names."""

    source = "keras"
    requires = ("tensorflow", "keras", "tf2onnx", "onnx")

    def traced(self, model: Path, batch: int | None) -> Traced:
        """See `TraceStep`."""
        return traced(model, batch)
