"""Check every slice of an output (a channel, a column, a key point): is it still varying, and correct?

One figure for a tensor hides what is inside: if boxes in pixels share an output with scores from 0 to 1, the boxes
alone decide it. Measured on the int8 MobileNetV2 (20 pictures, 1001 columns): some 700 columns never change in the
result, but none of them moves by more than 0.7 steps in the source; a correct column is off by as much as 0.12 in a
single picture. So movement is counted in the result's steps, and noise only if several values show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.self_check import OutputCheck, Part

FEW = 16  # slices of an axis up to which each counts by its own range, as the coordinates of a box do
_FEW_STEPS = 8  # that such a slice needs: of one computation, so that a difference of scale is less likely
_STILL = 0.02  # share of the source's movement below which the result does not move
_DEAD_STEPS = 2.0
_ROUNDING = 1e-6  # of the largest value: movement below that is the rounding of float32
_EVIDENCE = 4.0  # values that must carry a slice's movement before its noise is judged
_MAX_VALUES = 1 << 22  # of an output that are looked at; beyond that, fewer samples are
_GRID_SAMPLE = 1 << 16
_GRID_STEPS = 1 << 12  # from the lowest value of a quantized output to the highest, at most
_GRID_LEVELS = 6  # distinct values that lie on a grid hardly by chance; fewer must repeat often
_GRID_SLACK = 0.03  # of a step: the rounding of float32, times the number of steps
_MAX_NAMED = 3


@dataclass(frozen=True)
class SliceLimits:
    """The limits of a precision.

    steps: A slice's range must hold this many quantization steps; 1/(2 × steps) of it is noise that is always allowed.
    snr_db: The least ratio of a slice's movement to its noise.
    """

    steps: float
    snr_db: float


# A slice may be 9 to 20 dB noisier than all of the output together, whose limits are in the host's proof.
LIMITS: Mapping[str, SliceLimits] = {"fp32": SliceLimits(2048, 30.0), "fp16": SliceLimits(128, 10.0)}
_QUANTIZED = SliceLimits(32, 3.0)


def limits_of(precision: str) -> SliceLimits:
    """Return the limits of a precision; those that are not listed are quantized."""
    return LIMITS.get(precision, _QUANTIZED)


@dataclass(frozen=True)
class SliceDefect:
    """Adjacent slices with the same defect: `first` to `last` of `axis` in the shape of `output`; axis −1 means all.

    words: The defect.
    weight: How bad it is, to find the worst.
    """

    output: str
    axis: int
    first: int
    last: int
    words: str
    weight: float
    place: str = ""

    @property
    def where(self) -> str:
        """The name of the slices: `output 'out', channels 4..6`."""
        return f"output '{self.output}'{self.place}"

    def as_dict(self) -> JsonObject:
        """Return the finding as JSON."""
        found: JsonObject = {"output": self.output, "axis": self.axis, "first": self.first, "last": self.last}
        return {**found, "where": self.where, "reason": self.words}


@dataclass(frozen=True)
class SliceReport:
    """What was found: slices that fail, and `faint` ones, too weak in the source for the result to show them."""

    checked: int = 0
    failed: tuple[SliceDefect, ...] = ()
    faint: tuple[str, ...] = ()

    @property
    def worst(self) -> SliceDefect | None:
        """The worst of the failed slices."""
        return max(self.failed, key=lambda one: one.weight, default=None)

    def __add__(self, other: SliceReport) -> SliceReport:
        return SliceReport(self.checked + other.checked, self.failed + other.failed, self.faint + other.faint)

    def describe(self) -> tuple[str, ...]:
        """Return one line for each failed range, the worst first, up to a number that can be read."""
        ordered = sorted(self.failed, key=lambda one: -one.weight)
        more = len(ordered) - _MAX_NAMED
        rest = (f"and {more} more ranges of slices",) if more > 0 else ()
        return (*(f"{one.where}: {one.words}" for one in ordered[:_MAX_NAMED]), *rest)


def complete_check(check: OutputCheck, expected: Array, given: Array, scale: float = 0.0) -> OutputCheck:
    """Return the check with the spans of parts without a natural range, and the result's steps.

    `scale` is the quantization step in the file, 0 if it has none; then the step is observed.
    """
    expected, given = _thin_out(expected, given)
    whole = _added_step(expected, given, scale)
    return replace(check, parts=tuple(_measure(part, expected, given, scale, whole) for part in check.parts))


def _added_step(expected: Array, given: Array, scale: float) -> float:
    """Return the result's step, 0 where the source's values are on that grid too: then nothing is lost to it."""
    step = scale or observed_step(given)
    return step if step and observed_step(expected) < step / 2 else 0.0


def _measure(part: Part, expected: Array, given: Array, scale: float, whole: float) -> Part:
    mine = _slice_of(part, expected)
    low, high = float(mine.min()), float(mine.max())
    natural, span = part.natural, part.span
    if not natural:
        # Without a graph: values that stay within 0 to 1 and use it are shares or scores.
        natural = low >= 0 and high <= 1 + 1e-3 and high - low >= 1 / 32
        span = 1.0 if natural else high - low
    step = _added_step(mine, _slice_of(part, given), scale) or whole
    return replace(part, span=float(f"{span:.6g}"), natural=natural, step=float(f"{step:.6g}"))


def observed_step(values: Array) -> float:
    """Return the distance of the grid that all values are on, 0 if there is none or there are too few to tell."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _GRID_SAMPLE)].astype(np.float64)
    levels = np.unique(sample)
    if len(levels) < 2 or (len(levels) < _GRID_LEVELS and len(levels) > len(sample) // 16):
        return 0.0
    step = float(np.diff(levels).min())
    if levels[-1] - levels[0] > _GRID_STEPS * step:
        return 0.0
    places = (levels - levels[0]) / step
    return step if bool(np.abs(places - np.round(places)).max() < _GRID_SLACK) else 0.0


def judge_slices(check: OutputCheck, expected: Array, given: Array, limits: SliceLimits) -> SliceReport:
    """Compare every slice of every part and axis with the source's: [n, *shape], finite, dequantized."""
    if not expected.size:
        return SliceReport()
    expected, given = _thin_out(expected, given)
    report = SliceReport()
    for part in check.parts:
        report += _judge_part(check.name, part, expected, given, limits)
    return report


def _judge_part(output: str, part: Part, expected: Array, given: Array, limits: SliceLimits) -> SliceReport:
    shape = expected.shape[1:]
    if part.span > 0 and part.step * limits.steps > part.span:
        return SliceReport(1, (_coarse(output, part, expected, given),))
    elements = _Elements.of(_slice_of(part, expected), _slice_of(part, given))
    report, candidates = SliceReport(), []
    for axis, size in enumerate(elements.shape):
        if size == 1 and axis != part.axis:
            continue
        failed, faint = elements.slices(axis).defects(part, limits, few=size <= FEW)
        found = _join_adjacent(output, shape, axis, part.start if axis == part.axis else 0, failed)
        report += SliceReport(size, (), _describe_faint(output, shape, axis, faint, part.step))
        if found:
            candidates.append((sum(one.last - one.first + 1 for one in found) / size, found))
    if candidates:  # the same defect shows on several axes: the fewest slices name it best
        report += SliceReport(0, min(candidates, key=lambda one: one[0])[1])
    return report


def _coarse(output: str, part: Part, expected: Array, given: Array) -> SliceDefect:
    words = f"one step of the result is {part.step:.3g}, too coarse for their range of {part.span:.3g}"
    moved, moves = (float(np.ptp(_slice_of(part, values), axis=0).max()) for values in (expected, given))
    if moves <= _STILL * moved:
        words += "; they are constant in the result and not in the source"
    place = _describe_place(expected.shape[1:], part.axis, part.start, part.stop - 1)
    return SliceDefect(
        output=output,
        axis=part.axis,
        first=part.start,
        last=part.stop - 1,
        words=words,
        weight=1e3 * part.step / part.span,
        place=place,
    )


@dataclass(frozen=True)
class _Elements:
    """Statistics of each element over the samples, [*shape].

    low, high: The bounds of the source's values; `lowest`, `highest` those of the result's.
    noise: The mean square of the difference.
    second, fourth: The sums of the source's deviation from its mean to the second and to the fourth power.
    rounding: What float32 rounds off.
    """

    low: Array
    high: Array
    lowest: Array
    highest: Array
    noise: Array
    second: Array
    fourth: Array
    samples: int
    rounding: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.low.shape)

    @classmethod
    def of(cls, expected: Array, given: Array) -> _Elements:
        low, high = expected.min(axis=0), expected.max(axis=0)
        middle = expected.mean(axis=0) if len(expected) > 1 else expected.mean()
        deviation = np.square(expected - middle)
        return cls(
            low=low,
            high=high,
            lowest=given.min(axis=0),
            highest=given.max(axis=0),
            noise=np.square(given - expected).mean(axis=0),
            second=deviation.sum(axis=0),
            fourth=np.square(deviation).sum(axis=0),
            samples=len(expected),
            rounding=_ROUNDING * float(max(np.abs(low).max(), np.abs(high).max())),
        )

    def slices(self, axis: int) -> _Slices:
        def rows(values: Array) -> Array:
            return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)

        second, fourth = rows(self.second).sum(axis=1), rows(self.fourth).sum(axis=1)
        count = self.samples * self.low.size // self.low.shape[axis]
        span = rows(self.high).max(axis=1) - rows(self.low).min(axis=1)
        spans = rows(self.highest).max(axis=1) - rows(self.lowest).min(axis=1)
        single = self.samples == 1  # then movement is that from place to place
        return _Slices(
            span=span,
            moved=span if single else rows(self.high - self.low).max(axis=1),
            moves=spans if single else rows(self.highest - self.lowest).max(axis=1),
            noise=rows(self.noise).mean(axis=1),
            signal=second / count,
            carriers=np.divide(np.square(second), fourth, out=np.zeros(len(second)), where=fourth > 0),
            rounding=self.rounding,
        )


@dataclass(frozen=True)
class _Slices:
    """Statistics of the slices of one axis, [size]."""

    span: Array
    moved: Array
    moves: Array
    noise: Array
    signal: Array
    carriers: Array
    rounding: float

    def defects(self, part: Part, limits: SliceLimits, few: bool) -> tuple[Mapping[int, tuple[str, float]], list[int]]:
        """Return the failing slices with words and weight, and the faint slices."""
        own = self.span if few and not part.natural else np.full(len(self.span), part.span)
        lives = self.moved > self.rounding
        still = lives & (self.moves <= _STILL * self.moved)
        # Noise can hold back a single weak value, but neither several nor a strong one.
        strong = (self.carriers >= _EVIDENCE) | (self.moved > own / limits.steps)
        dead = still & strong & (self.moved > (_DEAD_STEPS * part.step or own / limits.steps))
        failed: dict[int, tuple[str, float]] = {}
        for place in np.flatnonzero(dead):
            words = (
                f"constant in the result, while the source's {_describe_movement(float(self.moved[place]), part.step)}"
            )
            failed[int(place)] = (words, 1e3)
        if few and not part.natural and part.step:
            for place in np.flatnonzero(lives & (self.span < _FEW_STEPS * part.step) & ~dead):
                span = float(self.span[place])
                words = f"one step of the result is {part.step:.3g}, too coarse for their range of {span:.3g}"
                failed[int(place)] = (words, 1e2 * part.step / span)
        ratio = 10 * np.log10(np.maximum(self.signal, 1e-300) / np.maximum(self.noise, 1e-300))
        allowed = np.maximum(own / (2 * limits.steps), 10 * self.rounding)
        noisy = lives & (self.carriers >= _EVIDENCE) & (ratio < limits.snr_db) & (np.sqrt(self.noise) > allowed)
        for place in np.flatnonzero(noisy):
            words = f"differs from the source's: {ratio[place]:.1f} dB, at least {limits.snr_db:g} dB"
            failed.setdefault(int(place), (words, float(limits.snr_db - ratio[place])))
        return failed, [int(place) for place in np.flatnonzero(still) if int(place) not in failed and part.step]


def _describe_movement(moved: float, step: float) -> str:
    return f"moves by {moved:.3g}" + (f", {moved / step:.3g} steps of it" if step else "")


def _join_adjacent(
    output: str, shape: Sequence[int], axis: int, offset: int, failed: Mapping[int, tuple[str, float]]
) -> tuple[SliceDefect, ...]:
    """Join adjacent slices with the same defect, with the words of the worst of them."""
    found: list[SliceDefect] = []
    for index in sorted(failed):
        words, weight = failed[index]
        place = index + offset
        last = found[-1] if found else None
        if last is not None and last.last == place - 1 and last.words.split()[0] == words.split()[0]:
            worse = last.words if last.weight >= weight else words
            found[-1] = replace(last, last=place, words=worse, weight=max(last.weight, weight))
        else:
            found.append(SliceDefect(output=output, axis=axis, first=place, last=place, words=words, weight=weight))
    return tuple(replace(one, place=_describe_place(shape, axis, one.first, one.last)) for one in found)


def _describe_faint(
    output: str, shape: Sequence[int], axis: int, places: Sequence[int], step: float
) -> tuple[str, ...]:
    if not places:
        return ()
    kind = _axis_name(shape, axis) or f"indices of axis {axis}"
    count = f"{len(places):,} of {shape[axis]:,} {kind}"
    return (f"output '{output}': {count} move by less than two steps ({step:.3g}) and are constant in the result",)


def _describe_place(shape: Sequence[int], axis: int, first: int, last: int) -> str:
    """Name slices: `, channels 4..6`; nothing for all of them."""
    if first == 0 and last == shape[axis] - 1:
        return ""
    kind = _axis_name(shape, axis)
    indices = f"{first}..{last}" if last > first else f"{first}"
    if not kind:
        return f", {'indices' if last > first else 'index'} {indices} of axis {axis}"
    return f", {kind if last > first else kind[:-1]} {indices}"


def _axis_name(shape: Sequence[int], axis: int) -> str:
    """Return what the slices of an axis are called.

    The second or the last axis has the channels: the one that a square map leaves, else the shorter.
    """
    rank = len(shape)
    if rank <= 2:
        return "columns" if axis == rank - 1 else ""
    is_last = shape[1] > shape[-1]
    if rank == 4 and shape[1] != shape[3] and shape[2] in (shape[1], shape[3]):
        is_last = shape[1] == shape[2]
    channels = rank - 1 if is_last else 1
    return "channels" if axis == channels else ""


def _slice_of(part: Part, values: Array) -> Array:
    if part.start == 0 and part.stop >= values.shape[part.axis + 1]:
        return values
    index = [slice(None)] * values.ndim
    index[part.axis + 1] = slice(part.start, part.stop)
    return values[tuple(index)]


def _thin_out(expected: Array, given: Array) -> tuple[Array, Array]:
    """Return fewer samples of a large output, evenly chosen; a scalar output gets an axis."""
    count = max(2, _MAX_VALUES // max(1, expected[0].size))
    if len(expected) > count:
        rows = np.linspace(0, len(expected) - 1, count).astype(int)
        expected, given = expected[rows], given[rows]
    shape = expected.shape if expected.ndim > 1 else (len(expected), 1)
    return expected.reshape(shape).astype(np.float64), given.reshape(shape).astype(np.float64)
