"""One operator of a TFLite graph together with its tensors, for compatibility checks and operation counts."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

from converters.tflite.reader import Graph, Operator, Tensor

_INTEGERS = {"int32": "i", "int64": "q"}
# Axis lists and shapes are shorter than this; the rest of a longer constant is not read.
_MAX_INTEGERS = 64
_MAX_DIMENSIONS = 8  # of a tensor in TFLite's kernels; a broken file may claim millions


@dataclass(frozen=True, kw_only=True)
class TfliteOp:
    """An operator and the tensors of its graph."""

    operator: Operator
    tensors: tuple[Tensor, ...]
    borders: frozenset[int] = frozenset()  # the graph's inputs and outputs

    @property
    def type(self) -> str:
        """The schema's name of a built-in operator, or the custom code of a custom one."""
        return self.operator.name

    @property
    def name(self) -> str:
        """The name of the first output."""
        return self.outputs[0].spec.name if self.outputs else ""

    @property
    def is_at_border(self) -> bool:
        """Whether it reads an input of the graph, or computes an output."""
        return not self.borders.isdisjoint((*self.operator.inputs, *self.operator.outputs))

    @property
    def outputs(self) -> list[Tensor]:
        """The output tensors."""
        return [self.tensors[index] for index in self.operator.outputs if index >= 0]

    @property
    def inputs(self) -> list[Tensor]:
        """The input tensors, without omitted optional ones."""
        return [self.tensors[index] for index in self.operator.inputs if index >= 0]

    def input(self, place: int) -> Tensor | None:
        """Return the input at index `place`, or None if it is omitted."""
        indices = self.operator.inputs
        return self.tensors[indices[place]] if place < len(indices) and indices[place] >= 0 else None

    def option(self, field: int, kind: str, default: int = 0) -> int:
        """Return a number of the built-in options by its field index; `default` if the operator has no options."""
        table = self.operator.builtin_options
        return default if table is None else table.number(field, kind, default)

    def integers(self, place: int) -> tuple[int, ...] | None:
        """Return the values of a constant input such as axes or a shape; None if it is not one of integers.

        At most `_MAX_INTEGERS` values are read.
        """
        tensor = self.input(place)
        letter = _INTEGERS.get(tensor.spec.dtype) if tensor else None
        if tensor is None or letter is None or not len(tensor.data.view):
            return None
        count = min(len(tensor.data.view) // struct.calcsize(f"<{letter}"), _MAX_INTEGERS)
        return struct.unpack_from(f"<{count}{letter}", tensor.data.view)


def sizes(tensor: Tensor | None) -> tuple[int, ...]:
    """Return the dimensions of a tensor, with 1 for a free one; empty for a missing tensor."""
    return () if tensor is None else tuple(1 if isinstance(size, str) else size for size in tensor.spec.shape)


def elements(tensor: Tensor | None) -> int:
    """Return the number of elements, free dimensions counting as 1; 0 for a missing tensor."""
    return 0 if tensor is None else prod(sizes(tensor))


def is_constant(tensor: Tensor | None) -> bool:
    """Return whether a tensor's values are stored in the file. A missing tensor counts as constant."""
    return tensor is None or tensor.constant_bytes > 0


def graph_ops(graph: Graph) -> list[TfliteOp]:
    """Return the operators of a graph in execution order.

    Raises InputError for tensors with more dimensions than any kernel supports.
    """
    for operator in graph.operators:
        operator.options.spend(len(operator.inputs) + len(operator.outputs))
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and len(graph.tensors[index].spec.shape) > _MAX_DIMENSIONS:
                raise operator.options.unsupported(f"has a tensor with more than {_MAX_DIMENSIONS} dimensions")
    borders = frozenset((*graph.inputs, *graph.outputs))
    return [TfliteOp(operator=operator, tensors=graph.tensors, borders=borders) for operator in graph.operators]
