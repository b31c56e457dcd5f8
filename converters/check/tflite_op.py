"""One operator of a TFLite graph with its tensors at hand: what conditions and counts are asked of."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

from converters.tflite_graph import Graph, Operator, Tensor

_INTEGERS = {"int32": "i", "int64": "q"}
# An axis list or a shape; whatever is longer is no such thing and is not read.
_MOST_INTEGERS = 64
_MOST_DIMENSIONS = 8  # of a tensor in TFLite's kernels; a broken file may claim millions


@dataclass(frozen=True)
class TfliteOp:
    """An operator and the tensors of its graph."""

    operator: Operator
    tensors: tuple[Tensor, ...]

    @property
    def type(self) -> str:
        """The schema's name of a built-in operator; that of a custom one is its custom code."""
        return self.operator.name

    @property
    def name(self) -> str:
        """The name of the first output."""
        return self.outputs[0].spec.name if self.outputs else ""

    @property
    def outputs(self) -> list[Tensor]:
        """The output tensors."""
        return [self.tensors[index] for index in self.operator.outputs if index >= 0]

    @property
    def inputs(self) -> list[Tensor]:
        """The input tensors that are there."""
        return [self.tensors[index] for index in self.operator.inputs if index >= 0]

    def input(self, place: int) -> Tensor | None:
        """The input at `place`, or None where it is left out."""
        indices = self.operator.inputs
        return self.tensors[indices[place]] if place < len(indices) and indices[place] >= 0 else None

    def option(self, field: int, kind: str, default: int = 0) -> int:
        """A number of the built-in options, by its place in their table; `default` where there are none."""
        table = self.operator.builtin_options
        return default if table is None else table.number(field, kind, default)

    def integers(self, place: int) -> tuple[int, ...] | None:
        """The values of a constant input such as axes or a shape; None where they are computed or too many."""
        tensor = self.input(place)
        letter = _INTEGERS.get(tensor.spec.dtype) if tensor else None
        if tensor is None or letter is None or not len(tensor.data.view):
            return None
        count = min(len(tensor.data.view) // struct.calcsize(f"<{letter}"), _MOST_INTEGERS)
        return struct.unpack_from(f"<{count}{letter}", tensor.data.view)


def sizes(tensor: Tensor | None) -> tuple[int, ...]:
    """The dimensions of a tensor; a free one counts as 1, as does the whole of one that is not there."""
    return () if tensor is None else tuple(1 if isinstance(size, str) else size for size in tensor.spec.shape)


def elements(tensor: Tensor | None) -> int:
    """The number of elements, free dimensions counting as 1; 0 for a tensor that is not there."""
    return 0 if tensor is None else prod(sizes(tensor))


def is_constant(tensor: Tensor | None) -> bool:
    """Whether a tensor's values stand in the file; one that is left out counts as constant."""
    return tensor is None or tensor.constant_bytes > 0


def graph_ops(graph: Graph) -> list[TfliteOp]:
    """The operators of a graph, in the order in which they run; InputError for tensors that no kernel could hold."""
    for operator in graph.operators:
        operator.options.spend(len(operator.inputs) + len(operator.outputs))
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and len(graph.tensors[index].spec.shape) > _MOST_DIMENSIONS:
                raise operator.options.broken(f"a tensor has more than {_MOST_DIMENSIONS} dimensions")
    return [TfliteOp(operator, graph.tensors) for operator in graph.operators]
