"""Trace the elements of an output back to the operations that compute them, and to their natural range.

`Tracer` is independent of the format: a reader (`onnx_origins`, `tflite_origins`) describes each operation as a `Step`.
Operations that only move elements are followed (Concat, Reshape, Slice, Transpose); those that bound them give a range
(Sigmoid, Softmax), which constant factors scale. Anything else is an origin of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.self_check import Part

MAX_ELEMENTS = 1 << 22  # of an output whose origins are traced element by element
_MAX_DEPTH = 200


class UnknownOriginError(Exception):
    """A shape or an operand is not known; the output is then one part."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """An operation, as far as the tracer needs to know it.

    inputs: The tensors that it moves or scales, or that decide its range.
    move: Computes the output from such inputs by moving elements only; None if it does more.
    width: The width of its natural range whatever the input: 1 for a sigmoid; None if it has none.
    scale: Computes the width of its range from that of its inputs; None if it cannot.
    labels: Whether it yields class ids, indices or truth values.
    """

    inputs: tuple[str, ...] = ()
    move: Callable[[Sequence[Array]], Array] | None = None
    width: float | None = None
    scale: Callable[[Sequence[Array]], Array] | None = None
    labels: bool = False


class OriginReader(ABC):
    """Describes the graph of one file.

    outputs: The names of its outputs.
    is_exact: Whether all inputs and constants are whole numbers or truth values, so that nothing is rounded.
    """

    outputs: tuple[str, ...]
    is_exact: bool = False

    @abstractmethod
    def step(self, tensor: str) -> Step | None:
        """Return the operation that computes the tensor; None for an input or a constant."""

    @abstractmethod
    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the tensor's shape with free dimensions as 1; None if it is unknown."""


@dataclass(frozen=True)
class _Elements:
    """The origin of each element of a tensor, by number, and the width of its natural range; NaN if unknown."""

    origin: Array
    width: Array


class Tracer:
    """Traces the outputs of one graph."""

    def __init__(self, reader: OriginReader) -> None:
        self._reader = reader
        self._numbers: dict[str, int] = {}

    def parts(self, output: str, shape: Sequence[int]) -> tuple[Part, ...]:
        """Return the parts of an output of this shape; one without a natural range if its origins are unknown."""
        whole = whole_output(shape)
        if not 0 < prod(shape) <= MAX_ELEMENTS or not shape:
            return whole
        try:
            found = self._trace(output, {output: tuple(shape)}, _MAX_DEPTH)
            elements = _Elements(*(one.reshape(shape) for one in (found.origin, found.width)))
        except (UnknownOriginError, ValueError, IndexError):  # ValueError, IndexError: the file contradicts itself
            return whole
        return _parts(elements) or whole

    def is_label(self, output: str) -> bool | None:
        """Return whether an integer output holds labels, or other values that must be equal to the last bit; None if
        what computes it is unknown."""
        tensor: str | None = output
        for _ in range(_MAX_DEPTH):
            step = self._reader.step(tensor) if tensor else None
            if step is None:
                return None
            if step.labels or not (step.move and step.inputs):
                return step.labels or self._reader.is_exact
            tensor = step.inputs[0]
        return None

    def _trace(self, tensor: str, known: Mapping[str, tuple[int, ...]], depth: int) -> _Elements:
        step = self._reader.step(tensor)
        if depth == 0:
            raise UnknownOriginError
        if step is not None and step.move is not None:
            inputs = [self._trace(name, {}, depth - 1) for name in step.inputs]
            return _Elements(step.move([one.origin for one in inputs]), step.move([one.width for one in inputs]))
        number = self._numbers.setdefault(tensor, len(self._numbers))
        if step is not None and step.scale is not None:
            try:
                inputs = [self._trace(name, {}, depth - 1) for name in step.inputs]
                width = step.scale([one.width for one in inputs])
                return _Elements(np.full(width.shape, number, np.int32), width)
            except (UnknownOriginError, ValueError):
                pass
        shape = known.get(tensor) or self._reader.shape(tensor)
        if shape is None or prod(shape) > MAX_ELEMENTS:
            raise UnknownOriginError
        natural = np.nan if step is None or step.width is None else step.width
        return _Elements(np.full(shape, number, np.int32), np.full(shape, natural, np.float32))


def head_layers(reader: OriginReader) -> tuple[tuple[str, ...], ...]:
    """Return growing sets of the tensors at the outputs: what is only moved there, then what is scaled or computed.

    Kept in float, the first leaves each part of an output in its own range.
    """
    moved: dict[str, None] = {}
    computed: dict[str, None] = {}
    waiting = list(reader.outputs)
    while waiting:
        tensor = waiting.pop()
        step = reader.step(tensor)
        if step is None or tensor in moved or tensor in computed:
            continue
        (moved if step.move is not None else computed)[tensor] = None
        waiting += step.inputs
    sets = (tuple(moved), (*moved, *computed))
    return tuple(one for place, one in enumerate(sets) if one and one not in sets[:place])


def whole_output(shape: Sequence[int]) -> tuple[Part, ...]:
    """Return the one part of an output of which nothing is known."""
    return (Part(axis=0, start=0, stop=shape[0] if shape else 1, span=0.0),)


def _parts(elements: _Elements) -> tuple[Part, ...]:
    """Cut the output along the axis on which the fewest slices mix origins and ranges."""
    classes = np.where(np.isnan(elements.width), -1.0 - elements.origin, elements.width).astype(np.float64)
    if classes.min() == classes.max():
        return (_part(0, 0, classes.shape[0], (float(classes.flat[0]),)),)
    best: tuple[int, list[Part]] | None = None
    for axis, size in enumerate(classes.shape):
        rows = np.moveaxis(classes, axis, 0).reshape(size, -1)
        low, high = rows.min(axis=1), rows.max(axis=1)
        pure = low == high
        kinds = [(float(low[i]),) if pure[i] else tuple(np.unique(rows[i]).tolist()) for i in range(size)]
        cuts = [0, *(i for i in range(1, size) if kinds[i] != kinds[i - 1]), size]
        parts = [_part(axis, a, b, kinds[a]) for a, b in pairwise(cuts)]
        mixed = int((~pure).sum() * (classes.size // size))
        if best is None or (mixed, -len(parts)) < (best[0], -len(best[1])):
            best = mixed, parts
    return tuple(best[1]) if best else ()


def _part(axis: int, start: int, stop: int, kinds: tuple[float, ...]) -> Part:
    natural = min(kinds) > 0 and len(kinds) == 1
    return Part(axis=axis, start=start, stop=stop, span=kinds[0] if natural else 0.0, natural=natural)
