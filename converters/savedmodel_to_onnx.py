"""TensorFlow SavedModel → ONNX through tf2onnx: fp32, the requested opset, the source's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.tensorflow.base import OnnxConverter

if TYPE_CHECKING:
    from converters.tensorflow.tracing import TracedFunction


class SavedmodelToOnnx(OnnxConverter):
    """Inputs and outputs keep the names of the serving signature."""

    source = "savedmodel"
    requires = (Requirement("tensorflow"), Requirement("tf2onnx", "table"), Requirement("onnx", "table"))

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
