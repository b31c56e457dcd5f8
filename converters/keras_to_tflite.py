"""Keras → TFLite through TensorFlow's own converter: fp32, fp16 weights, int8 weights (w8), or full int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.tensorflow.base import TfliteConverter

if TYPE_CHECKING:
    from converters.tensorflow.tracing import TracedFunction


class KerasToTflite(TfliteConverter):
    """Static shapes, NHWC."""

    source = "keras"
    requires = (Requirement("tensorflow"), Requirement("keras"))

    def trace(
        self, model: Path, batch: int | None, shapes: Sequence[str] = (), *, unroll: bool = False
    ) -> TracedFunction:
        """See `TracingConverter`."""
        from converters.tensorflow.models import trace_keras

        return trace_keras(model, batch, shapes, unroll=unroll)
