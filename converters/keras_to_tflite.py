"""Keras → TFLite through TensorFlow's own converter: fp32, fp16 weights, int8 weights (w8), or full int8."""

from __future__ import annotations

from pathlib import Path

from converters.keras_source import traced
from converters.tensorflow_function import Traced
from converters.tensorflow_steps import TfliteStep


class Step(TfliteStep):
    """Static shapes, NHWC."""

    source = "keras"
    requires = ("tensorflow", "keras")

    def traced(self, model: Path, batch: int | None) -> Traced:
        """See `TraceStep`."""
        return traced(model, batch)
