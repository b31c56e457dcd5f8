"""The view of raw tensors: one line per output."""

from __future__ import annotations

from typing import Any

from edge.tasks import TaskView
from runtimes.arrays import Array
from runtimes.session import format_shape
from runtimes.tasks.tensors import Tensors, summary


class TensorsView(TaskView[Tensors, Any]):
    """Shows shape, type and range; draws and scores nothing, because the meaning of the numbers is not known."""

    id = "tensors"

    def describe(self, result: Tensors) -> str:
        """Format one output per line: name, dtype, shape, and the smallest, largest and mean value."""
        return "\n".join(f"  {name}  {_facts(array)}" for name, array in result.arrays.items())


def _facts(array: Array) -> str:
    facts = summary(array)
    words = [f"{word} {facts[word]:.6g}" for word in ("min", "max", "mean") if facts[word] is not None]
    if "not_finite" in facts:
        words.append(f"{facts['not_finite']} NaN or infinite")
    return f"{array.dtype.name}{format_shape(array.shape)}  {', '.join(words) or 'no numbers'}"
