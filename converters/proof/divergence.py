"""Find the first tensor in a graph whose values diverge from the source's, and why.

Tensors are paired by name if both models have the name, and otherwise by value among those of the same size, in any of
the usual layouts: a converter renames, fuses and transposes them. A source tensor without a partner is not a fault as
long as something computed from it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.proof.inner_tensors import InnerTensor
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.verification.slices import observed_step

# Precision → the signal-to-noise ratio, in dB, from which a tensor counts as the source's.
_LIMITS: Mapping[str, float] = {"fp32": 50.0, "fp16": 25.0}
_QUANTIZED = 14.0
_FLOAT16_MAX = 65504.0
_LAYOUTS: Mapping[int, tuple[tuple[int, ...], ...]] = {
    3: ((0, 2, 1),),
    4: ((0, 2, 3, 1), (0, 3, 1, 2)),
    5: ((0, 2, 3, 4, 1), (0, 4, 1, 2, 3)),
}
_MAX_CANDIDATES = 8  # of the same size that are compared value by value
_CLIPPED = 0.005  # share of the values at the end of the result's range
_EXACT_DB = 300.0
_STEPS = 24  # a tensor whose values span fewer steps of the result is too coarse


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first tensor of the source that the result computes differently.

    tensor, operator: The source's tensor, and the operator that computes it.
    cause: "range", "saturation", "layout", "scale", "rounding" or "semantics".
    explanation: The cause in words.
    snr_db: The ratio of the source's signal to the difference; None if nothing in the result resembles it.
    result_tensor, result_operator: What the result has in its place, if it was found.
    """

    tensor: str
    operator: str
    cause: str
    explanation: str
    snr_db: float | None
    result_tensor: str | None = None
    result_operator: str | None = None

    def __str__(self) -> str:
        return f"the first tensor that differs is '{self.tensor}' ({self.operator}): {self.explanation}"

    def as_dict(self) -> JsonObject:
        """Return the divergence as JSON."""
        return {
            "tensor": self.tensor,
            "operator": self.operator,
            "cause": self.cause,
            "explanation": self.explanation,
            "snr_db": self.snr_db,
            "result_tensor": self.result_tensor,
            "result_operator": self.result_operator,
        }


@dataclass(frozen=True, kw_only=True)
class _Match:
    """The result's tensor that comes closest, its values in the source's axes, and how close they are."""

    tensor: InnerTensor
    values: Array
    snr_db: float
    is_named: bool


@dataclass(frozen=True, kw_only=True)
class LostSlice:
    """Indices `first` to `last` of `axis` of an output that failed, while the output as a whole may be right."""

    output: str
    axis: int
    first: int
    last: int
    where: str


def first_divergence(
    source: Sequence[InnerTensor], result: Sequence[InnerTensor], precision: str, lost: LostSlice | None = None
) -> Divergence | None:
    """Return the first tensor of `source`, in order of computation, from which on nothing in `result` agrees.

    lost: What failed in an output, which names the output if all tensors agree as a whole.
    """
    limit = _LIMITS.get(precision, _QUANTIZED)
    partners = _Partners(result)
    matches: dict[int, _Match | None] = {}
    judged = [place for place, one in enumerate(source) if one.values is not None and np.ptp(one.values) > 0]
    outputs = [one for one in result if one.is_output]
    for place in judged:
        matches[place] = partners.best(source[place], outputs)
    right = {place for place, match in matches.items() if match is not None and match.snr_db >= limit}
    reaching = _with_ancestors(source, right)
    suspects = [place for place in judged if place not in reaching]
    if suspects:
        return _explain(source[suspects[0]], matches[suspects[0]], precision, limit)
    for place, match in matches.items() if lost is not None else ():
        if lost is not None and lost.output in source[place].names and match is not None:
            return _explain_slice(source[place], match, precision, limit, lost)
    return None


def _explain_slice(
    source: InnerTensor, match: _Match, precision: str, limit: float, lost: LostSlice
) -> Divergence | None:
    """Explain an output that agrees as a whole by the slice that does not; None if its axes are not known."""
    wanted = match.tensor.values
    if source.values is None or wanted is None or source.values.shape != wanted.shape or lost.axis >= wanted.ndim:
        return None
    indices = range(lost.first, lost.last + 1)
    mine, other = (np.take(values, indices, axis=lost.axis) for values in (source.values, wanted))
    cut = replace(source, values=mine)
    found = _explain(cut, replace(match, values=other, snr_db=decibels(mine, other)), precision, limit)
    return replace(found, explanation=f"{lost.where}: {found.explanation}")


def _with_ancestors(source: Sequence[InnerTensor], right: set[int]) -> set[int]:
    """Return the tensors from which a correct one is computed, and those themselves."""
    writers = {name: place for place, one in enumerate(source) for name in one.names}
    reached, waiting = set(right), list(right)
    while waiting:
        for name in source[waiting.pop()].inputs:
            place = writers.get(name)
            if place is not None and place not in reached:
                reached.add(place)
                waiting.append(place)
    return reached


class _Partners:
    """The tensors of the result, indexed by name and by size."""

    def __init__(self, result: Sequence[InnerTensor]) -> None:
        self._by_name: dict[str, list[InnerTensor]] = {}
        self._by_size: dict[int, list[tuple[InnerTensor, Array]]] = {}
        for one in result:
            if one.values is None or not one.values.size:
                continue
            for name in one.names:
                self._by_name.setdefault(name, []).append(one)
            self._by_size.setdefault(one.values.size, []).append((one, _moments(one.values)))

    def best(self, source: InnerTensor, outputs: Sequence[InnerTensor]) -> _Match | None:
        """Return the closest tensor: of the same name if there is one of that size, else of the same size."""
        assert source.values is not None
        named = [one for name in source.names for one in self._by_name.get(name, ()) if not name.startswith("#")]
        if source.is_output and not named and len(outputs) == 1:
            named = list(outputs)
        same = [one for one in named if one.values is not None and one.values.size == source.values.size]
        if same:
            return _closest(source.values, same, is_named=True)
        of_size = self._by_size.get(source.values.size, [])
        moments = _moments(source.values)
        apart = [float(np.abs(known - moments).max()) for _, known in of_size]
        order = np.argsort(apart, kind="stable")[:_MAX_CANDIDATES]
        return _closest(source.values, [of_size[place][0] for place in order], is_named=False)


def _closest(values: Array, candidates: Sequence[InnerTensor], *, is_named: bool) -> _Match | None:
    found = [
        _Match(tensor=one, values=turned, snr_db=decibels(values, turned), is_named=is_named)
        for one in candidates
        if one.values is not None
        for turned in _layouts(one.values, values.shape)
    ]
    return max(found, key=lambda match: match.snr_db, default=None)


def _layouts(values: Array, shape: Sequence[int]) -> Iterator[Array]:
    """Yield the values in the wanted shape, unchanged and with channels moved."""
    yield values.reshape(shape)
    for axes in _LAYOUTS.get(values.ndim, ()):
        yield values.transpose(axes).reshape(shape)
    for axes in _LAYOUTS.get(len(shape), ()):
        turned = [shape[axis] for axis in np.argsort(axes)]
        if values.ndim != len(shape) and sorted(turned) == sorted(shape):
            yield values.reshape(turned).transpose(axes).reshape(shape)


def _moments(values: Array) -> Array:
    """Return statistics that do not depend on the layout, in units of the spread: mean, extremes and spread."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return np.full(4, np.inf)
    return np.array([finite.mean(), finite.min(), finite.max(), finite.std()])


def decibels(source: Array, other: Array) -> float:
    """Return the power of the source's variation over that of the difference, in dB; −inf if not finite."""
    if not np.isfinite(other).all():
        return -np.inf
    noise = float(np.square(other.astype(np.float64) - source).mean())
    signal = float(np.square(source.astype(np.float64) - source.mean()).mean())
    return _EXACT_DB if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


def _explain(source: InnerTensor, match: _Match | None, precision: str, limit: float) -> Divergence:
    assert source.values is not None
    reach = float(np.abs(source.values).max())
    if match is None:
        words = "the result has nothing of this size that agrees with it or with what is computed from it"
        cause, snr = "semantics", None
        if precision == "fp16" and reach > _FLOAT16_MAX:
            cause, words = "range", f"it reaches {reach:.2g}; fp16 ends at {_FLOAT16_MAX:.0f}"
    else:
        cause, words = _cause(source.values, match.values, precision, limit)
        snr = round(match.snr_db, 1) if np.isfinite(match.snr_db) else None
    is_alike = match is not None and (match.is_named or cause != "semantics")
    return Divergence(
        tensor=source.names[-1],
        operator=source.operator,
        cause=cause,
        explanation=words,
        snr_db=snr,
        result_tensor=match.tensor.names[-1] if match is not None and is_alike else None,
        result_operator=match.tensor.operator if match is not None and is_alike else None,
    )


def _cause(source: Array, other: Array, precision: str, limit: float) -> tuple[str, str]:
    """Return the cause of the difference, and its explanation."""
    reach, step = float(np.abs(source).max()), observed_step(other)
    span, low, high = float(np.ptp(source)), float(other.min()), float(other.max())
    if precision == "fp16" and reach > _FLOAT16_MAX:
        return "range", f"it reaches {reach:.2g}; fp16 ends at {_FLOAT16_MAX:.0f}"
    if not np.isfinite(other).all():
        return "range", f"the result is not finite, where the source reaches {reach:.3g}"
    if decibels(np.sort(source, axis=None), np.sort(other, axis=None)) >= max(limit, 25.0):
        return "layout", "the result holds the same values in another order (layout)"
    if low == high:
        return "range", f"it is constant ({low:.3g}) in the result, while the source's values span {span:.3g} (range)"
    if step and span < _STEPS * step:
        return "range", f"one step of the result is {step:.3g}, too coarse for values that span {span:.3g} (range)"
    clipped = _describe_clipping(source, other, step, limit)
    if clipped:
        return "saturation", f"{clipped} (saturation)"
    scaled = _describe_scaling(source, other, limit)
    if scaled:
        return "scale", scaled
    rms = float(np.sqrt(np.square(other.astype(np.float64) - source).mean()))
    if step and rms < 2 * step:
        return "rounding", f"one step of the result is {step:.3g}, its error {rms:.3g} in values that span {span:.3g}"
    if precision not in _LIMITS and np.corrcoef(source.reshape(-1), other.reshape(-1))[0, 1] > 0.7:
        return "rounding", f"rounding adds up to an error of {rms:.3g} in values that span {span:.3g}"
    return (
        "semantics",
        "the result computes something else here (an operator that means another thing, or other weights)",
    )


def _describe_clipping(source: Array, other: Array, step: float, limit: float) -> str:
    """Describe values that end at one number in the result and not in the source; "" if that is not the cause."""
    for bound, beyond in ((other.max(), source > other.max()), (other.min(), source < other.min())):
        at_end = np.abs(other - bound) <= step / 2
        share = float((at_end & beyond).mean())
        inside = ~(at_end & beyond)
        if share < _CLIPPED or inside.sum() < 2 or np.ptp(source[inside]) == 0:
            continue
        if decibels(source[inside], other[inside]) >= limit:
            extreme = float(source.max() if bound == other.max() else source.min())
            return (
                f"{share:.2g} of its values end at {float(bound):.4g} in the result; the source's reach {extreme:.4g}"
            )
    return ""


def _describe_scaling(source: Array, other: Array, limit: float) -> str:
    """Describe values that are the source's times a factor plus an offset; "" if they are not."""
    flat = other.reshape(-1).astype(np.float64)
    factor, offset = np.polyfit(source.reshape(-1).astype(np.float64), flat, 1)
    if abs(factor) < 1e-6 or decibels(source, (flat.reshape(other.shape) - offset) / factor) < limit + 6:
        return ""
    words = f"the result's values are the source's times {factor:.4g}"
    return words + (f" plus {offset:.3g}" if abs(offset) > 1e-3 * float(np.ptp(source)) else "")
