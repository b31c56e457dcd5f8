"""Match the tensors of two models. Converters rename tensors and may permute their axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import TensorSpec
from runtimes.errors import EngineError
from runtimes.session import concrete_shape, format_shape

_TURNS = ((0, 3, 1, 2), (0, 2, 3, 1))  # NHWC → NCHW, NCHW → NHWC


@dataclass(frozen=True, kw_only=True)
class TensorPair:
    """A tensor in both models; `axes` permutes the source's axes into the other's, None if they are the same."""

    source: TensorSpec
    other: TensorSpec
    axes: tuple[int, ...] | None = None

    def to_other(self, stacked: Array) -> Array:
        """Permute samples [n, *source shape] to the other model's axes."""
        if self.axes is None:
            return stacked
        return np.ascontiguousarray(stacked.transpose(0, *(axis + 1 for axis in self.axes)))


def pair_tensors(source: Sequence[TensorSpec], other: Sequence[TensorSpec], kind: str) -> tuple[TensorPair, ...]:
    """Pair the `kind` ("input", "output") tensors of two models: by name if both use the same names, else in order.

    Inputs that the result lacks are left out if it has the others under their names: the source does not use them, or
    the outputs would differ. Raises EngineError if their number or shapes differ in another way, because then the
    conversion has changed the model.
    """
    kept = {spec.name for spec in other}
    if kind == "input" and kept and kept < {spec.name for spec in source}:
        source = [spec for spec in source if spec.name in kept]
    if len(source) != len(other):
        raise _changed_error(f"the source has {len(source)} {kind}s, the result {len(other)}")
    by_name = {spec.name: spec for spec in other}
    same_names = set(by_name) == {spec.name for spec in source}
    ordered = [by_name[spec.name] for spec in source] if same_names else other
    return tuple(_pair(one, another, kind) for one, another in zip(source, ordered, strict=True))


def _pair(source: TensorSpec, other: TensorSpec, kind: str) -> TensorPair:
    given, wanted = concrete_shape(source), concrete_shape(other)
    if given == wanted:
        return TensorPair(source=source, other=other)
    for axes in _TURNS:
        if len(given) == len(axes) and tuple(given[axis] for axis in axes) == wanted:
            return TensorPair(source=source, other=other, axes=axes)
    if _may_be_equal(source.shape, other.shape):
        return TensorPair(source=source, other=replace(other, shape=_fill_free_sizes(source.shape, other.shape)))
    if kind == "output" and prod(given) == prod(wanted):  # [1, 1001] and [1, 1, 1, 1001] hold the same
        return TensorPair(source=source, other=other)
    sizes = f"{format_shape(source.shape)}, in the result {format_shape(other.shape)}"
    raise _changed_error(f"{kind} '{source.name}' is {sizes}")


def _may_be_equal(shape: Sequence[int | str], other: Sequence[int | str]) -> bool:
    """Return whether two shapes differ only in sizes that one of them leaves free."""
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in pairs)


def _fill_free_sizes(shape: Sequence[int | str], other: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the `other` shape with the sizes that only the first one fixes."""
    return tuple(a if isinstance(b, str) else b for a, b in zip(shape, other, strict=True))


def reshape_answers(expected: Array, given: Array) -> Array:
    """Return the source's answers in the shape of the result's, if they hold as many values."""
    return expected.reshape(given.shape) if expected.size == given.size else expected


def _changed_error(what: str) -> EngineError:
    return EngineError(f"the conversion changed the model: {what}", "try another format, or another opset")
