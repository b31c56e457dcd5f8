"""TensorFlow SavedModel → TFLite through TensorFlow's own converter: fp32, fp16 weights, w8, or full int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.tensorflow.base import TfliteConverter

if TYPE_CHECKING:
    from converters.tensorflow.tracing import TracedFunction


class SavedmodelToTflite(TfliteConverter):
    """Static shapes, the layout of the source."""

    source = "savedmodel"
    requires = (Requirement("tensorflow"),)

    def trace(
        self,
        model: Path,
        batch: int | None,
        shapes: Sequence[str] = (),
        *,
        unroll: bool = False,  # noqa: ARG002
    ) -> TracedFunction:
        """See `TracingConverter`."""
        from converters.tensorflow.models import trace_savedmodel

        return trace_savedmodel(model, batch, shapes)
