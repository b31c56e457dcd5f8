"""Keras → TFLite through TensorFlow's own converter: fp32, fp16 weights, int8 weights (w8), or full int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.tensorflow.base import TfliteConverter

if TYPE_CHECKING:
    from converters.tensorflow.tracing import Traced


class KerasToTflite(TfliteConverter):
    """Static shapes, NHWC."""

    source = "keras"
    requires = (Requirement("tensorflow"), Requirement("keras"))

    def traced(self, model: Path, batch: int | None, shapes: Sequence[str] = (), *, unroll: bool = False) -> Traced:
        """See `TracingConverter`."""
        from converters.tensorflow.models import traced_keras

        return traced_keras(model, batch, shapes, unroll=unroll)
