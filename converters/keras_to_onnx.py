"""Keras → ONNX through tf2onnx: fp32, the requested opset, the source's layout (with one transpose inside)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.tensorflow.base import OnnxConverter

if TYPE_CHECKING:
    from converters.tensorflow.tracing import TracedFunction


class KerasToOnnx(OnnxConverter):
    """Inputs and outputs keep their Keras names. The states of stateful layers become inputs and outputs."""

    source = "keras"
    requires = (
        Requirement("tensorflow"),
        Requirement("keras"),
        Requirement("tf2onnx", "table"),
        Requirement("onnx", "table"),
    )

    def trace(
        self, model: Path, batch: int | None, shapes: Sequence[str] = (), *, unroll: bool = False
    ) -> TracedFunction:
        """See `TracingConverter`."""
        from converters.tensorflow.models import trace_keras

        return trace_keras(model, batch, shapes, unroll=unroll, explicit_states=True)
