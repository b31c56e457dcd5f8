"""Compute the small tensors from which ONNX graphs make sizes: Shape, Gather, Mul, Concat and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.onnx.graph import DTYPES, Constant, OnnxNode

Values = NDArray[Any]  # integers or booleans of 64 bits at most, or float64

MAX_ELEMENTS = 1024  # of a tensor that is computed; sizes are far fewer


def as_sizes(values: Values) -> tuple[int, ...]:
    """Return values as a flat tuple of integers. Raises ValueError if they are not whole numbers."""
    flat = values.reshape(-1).tolist()
    whole = tuple(int(one) for one in flat)
    if any(one != other for one, other in zip(flat, whole, strict=True)):
        raise ValueError("sizes are whole numbers")
    return whole


def asked_shape(node: OnnxNode, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the part of a tensor's sizes that a Shape node returns."""
    return sizes[node.integer("start", 0) : node.integer("end", len(sizes))]


def constant_values(constant: Constant) -> Values | None:
    """Return the contents of a constant that can be about sizes: a few integers or 32-bit floats."""
    count = prod(constant.shape)
    if count > MAX_ELEMENTS:
        return None
    is_whole = constant.dtype in ("int64", "int32")
    found: Sequence[float] = constant.integers() if is_whole else constant.reals(MAX_ELEMENTS)
    if len(found) != count:
        return None
    return np.array(found, np.int64 if is_whole else np.float64).reshape(constant.shape)


def output_values(
    node: OnnxNode, values: Sequence[Values | None], first: tuple[int, ...] | None, sizes: tuple[int, ...] | None
) -> Values | None:
    """Return the contents of a node's output, or None if they are unknown, large, or not valid.

    values: The contents of its inputs.
    first: The sizes of its first input.
    sizes: The sizes of its output.
    """
    if node.op == "Shape" and first is not None:
        return np.array(asked_shape(node, first), np.int64)
    if node.op == "Size" and first is not None:
        return np.array(prod(first), np.int64)
    rule = _RULES.get(node.op)
    given = [value for value in values if value is not None]
    if rule is None or sizes is None or prod(sizes) > MAX_ELEMENTS or len(given) != len(values):
        return None
    try:
        with np.errstate(all="ignore"):
            return rule(node, given, sizes)
    except (IndexError, ValueError, OverflowError, TypeError, ZeroDivisionError):
        return None


def _cast(node: OnnxNode, given: Sequence[Values], _sizes: tuple[int, ...]) -> Values:
    number = node.integer("to", 0)
    name = DTYPES[number] if 0 <= number < len(DTYPES) else ""
    kind = np.int64 if "int" in name else np.bool_ if name == "bool" else np.float64
    return given[0].astype(kind)


def _divided(_node: OnnxNode, given: Sequence[Values], _sizes: tuple[int, ...]) -> Values:
    first, second = given
    if first.dtype.kind == second.dtype.kind == "i":
        if not second.all():
            raise ZeroDivisionError
        return np.asarray(np.trunc(first / second), np.int64)
    return np.asarray(first / second)


def _sliced(node: OnnxNode, given: Sequence[Values], _sizes: tuple[int, ...]) -> Values:
    lists = [as_sizes(one) for one in given[1:]]
    starts, ends = lists[:2] if lists else (node.integers("starts"), node.integers("ends"))
    axes = lists[2] if len(lists) > 2 else node.integers("axes") or range(len(starts))
    steps = lists[3] if len(lists) > 3 else (1,) * len(starts)
    parts = [slice(None)] * given[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return given[0][tuple(parts)]


def _counted(_node: OnnxNode, given: Sequence[Values], _sizes: tuple[int, ...]) -> Values:
    start, end, step = (one.item() for one in given)
    return np.arange(start, end, step)


def _reshaped(_node: OnnxNode, given: Sequence[Values], sizes: tuple[int, ...]) -> Values:
    return given[0].reshape(sizes)


def _with(function: Callable[..., Any]) -> Callable[[OnnxNode, Sequence[Values], tuple[int, ...]], Values]:
    """Return the rule of an operator that is a function of numpy."""
    return lambda _node, given, _sizes: np.asarray(function(*given))


_RULES: Mapping[str, Callable[[OnnxNode, Sequence[Values], tuple[int, ...]], Values]] = {
    "Add": _with(np.add),
    "Sub": _with(np.subtract),
    "Mul": _with(np.multiply),
    "Div": _divided,
    "Max": _with(np.maximum),
    "Min": _with(np.minimum),
    "Equal": _with(np.equal),
    "Where": _with(np.where),
    "Ceil": _with(np.ceil),
    "Floor": _with(np.floor),
    "Neg": _with(np.negative),
    "Identity": _with(np.asarray),
    "Cast": _cast,
    "Concat": lambda node, given, _sizes: np.concatenate(given, node.integer("axis", 0)),
    "Gather": lambda node, given, _sizes: np.take(given[0], given[1], node.integer("axis", 0)),
    "ReduceProd": lambda _node, given, sizes: np.prod(given[0]).reshape(sizes),
    "Range": _counted,
    "Slice": _sliced,
    "Expand": lambda _node, given, sizes: np.broadcast_to(given[0], sizes),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshaped),
}
