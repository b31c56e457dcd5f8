"""The figures of a report, each a function of the width in pixels that it is drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge.reporting.svg import (
    NARROW,
    Drawing,
    Scale,
    format_number,
    free_positions,
    scale_of,
    shorten,
    text_width,
)
from runtimes.arrays import Array
from runtimes.measurement.statistics import median

_FOOT = 40.0  # the height of an axis
_BINS = 48  # of a distribution
_FARTHEST = 3.0  # times the median: where the axis of distributions ends at most


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: a value with its interval, or samples.

    style: The class of its mark: "published", "measured" or "estimated".
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    style: str = "measured"
    samples: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a scatter chart; `is_best` if no other is both lower in x and higher in y."""

    label: str
    x: float
    y: float
    style: str = "measured"
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The places of a chart's lines: labels at the left, or above each line where the figure is narrow."""

    scale: Scale
    step: float
    is_narrow: bool
    label_width: float

    def label(self, drawing: Drawing, place: int, text: str) -> float:
        """Write the label of a line, and return the vertical position of its mark."""
        y = place * self.step + self.step / 2 + 4
        if self.is_narrow:
            drawing.text(0, y - 6, shorten(text, drawing.width))
            return y + 8
        drawing.text(self.label_width, y + 4, shorten(text, self.label_width), anchor="end")
        return y


def _rows(labels: Sequence[str], values: list[float], width: float, step: float, *, from_zero: bool = False) -> _Rows:
    is_narrow = width <= NARROW
    label_width = 0.0 if is_narrow else min(max(map(text_width, labels)), 0.42 * width)
    start, end = label_width + 14, width - 66
    scale = Scale(low=0.0, high=max(values) or 1.0, start=start, end=end) if from_zero else scale_of(values, start, end)
    return _Rows(scale=scale, step=step + 16 * is_narrow, is_narrow=is_narrow, label_width=label_width)


def draw_intervals(lines: Sequence[Line], unit: str, width: float) -> Drawing:
    """Draw a value and its interval for each line."""
    values = [one for line in lines for one in (line.value, line.low, line.high) if one is not None and one > 0]
    rows = _rows([line.label for line in lines], values, width, 24)
    bottom = rows.step * len(lines) + 6
    drawing = Drawing(width, bottom + _FOOT)
    drawing.grid(rows.scale, 4, bottom, unit)
    for place, line in enumerate(lines):
        y = rows.label(drawing, place, line.label)
        x, hint = rows.scale.at(line.value), f"{line.label}: {format_number(line.value)} {unit}"
        last = x
        if line.low is not None and line.high is not None:
            last = rows.scale.at(line.high)
            drawing.line(rows.scale.at(line.low), y, last, y, f"whisker {line.style}")
            hint += f", {format_number(line.low)} to {format_number(line.high)}"
        drawing.mark(x, y, line.style, hint)
        drawing.text(max(last, x) + 10, y + 4, format_number(line.value), "value")
    return drawing


def draw_bars(lines: Sequence[Line], unit: str, width: float, digits: str = "") -> Drawing:
    """Draw a bar from zero for each line; `digits` formats the value, the default is three digits."""
    rows = _rows([line.label for line in lines], [line.value for line in lines], width, 22, from_zero=True)
    bottom = rows.step * len(lines) + 6
    drawing = Drawing(width, bottom + _FOOT)
    drawing.grid(rows.scale, 4, bottom, unit)
    for place, line in enumerate(lines):
        y = rows.label(drawing, place, line.label)
        value = format(line.value, digits) if digits else format_number(line.value)
        x = rows.scale.at(max(line.value, 0.0))
        drawing.rectangle(
            rows.scale.start, y - 6, x - rows.scale.start, 12, line.style, f"{line.label}: {value} {unit}"
        )
        drawing.text(x + 6, y + 4, value, "value")
    return drawing


def draw_distributions(lines: Sequence[Line], width: float) -> Drawing:
    """Draw the distribution of each line's samples, relative to their median; `value` is written next to it."""
    relative = [np.asarray(line.samples, np.float64) / median(line.samples) for line in lines]
    low = min(float(one.min()) for one in relative)
    high = min(max(float(np.percentile(one, 99.0)) for one in relative), _FARTHEST)
    rows = _rows([line.label for line in lines], [1.0], width, 34)
    scale = Scale(low=low - 0.01, high=max(high, 1.0) + 0.01, start=rows.scale.start, end=rows.scale.end)
    bottom = rows.step * len(lines) + 6
    drawing = Drawing(width, bottom + _FOOT)
    drawing.grid(scale, 4, bottom, "× the median")
    for place, (line, samples) in enumerate(zip(lines, relative, strict=True)):
        y = rows.label(drawing, place, line.label) + 12
        hint = f"{line.label}: median {format_number(line.value)} ms of {len(line.samples):,} runs"
        drawing.path(_outline(samples, scale, y, 24), f"area {line.style}", is_closed=True, hint=hint)
        drawing.line(scale.at(1.0), y - 25, scale.at(1.0), y, "median")
        drawing.text(width, y - 6, format_number(line.value), "value", "end")
    return drawing


def _outline(samples: Array, scale: Scale, base: float, height: float) -> list[tuple[float, float]]:
    """Return the outline of a histogram; what is beyond the axis is at its end."""
    places = np.array([scale.at(float(sample)) for sample in samples])
    low, high = float(places.min()), float(places.max())
    count = int(np.clip((high - low) / (scale.end - scale.start) * _BINS, 3, _BINS))
    found, edges = np.histogram(places, bins=count, range=(low - 0.5, high + 0.5))
    tops = base - height * found / found.max()
    points = [(float(edges[0]), base)]
    for place, top in enumerate(tops):
        points += [(float(edges[place]), float(top)), (float(edges[place + 1]), float(top))]
    return [*points, (float(edges[-1]), base)]


def best_points(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each (x, y) whether no other has a lower or equal x and a higher or equal y: the Pareto line."""
    return [
        not any(
            (other != (x, y) and other[0] <= x and other[1] >= y) or (other == (x, y) and place < own)
            for place, other in enumerate(points)
        )
        for own, (x, y) in enumerate(points)
    ]


def draw_scatter(points: Sequence[Point], x_unit: str, y_unit: str, width: float) -> Drawing:
    """Draw points with the numbers that their labels begin with, and the Pareto line through the best ones."""
    height, left = 340.0, 52.0
    values = [point.x for point in points]
    scale = Scale(low=min(values) / 1.3, high=max(values) * 1.3, start=left, end=width - 20, is_log=True)
    low, high = min(point.y for point in points), max(point.y for point in points)
    margin = max((high - low) * 0.12, 0.005)
    upright = Scale(low=max(low - margin, 0.0), high=min(high + margin, 1.0), start=height - 10, end=22)
    drawing = Drawing(width, height + _FOOT)
    drawing.grid(scale, 22, height, x_unit)
    for value in upright.ticks(5):
        drawing.line(left, upright.at(value), width, upright.at(value), "grid")
        drawing.text(left - 6, upright.at(value) + 4, f"{value:.1%}", "tick", "end")
    drawing.text(0, 12, y_unit, "axis")
    best = sorted((scale.at(point.x), upright.at(point.y)) for point in points if point.is_best)
    steps = [step for a, b in pairwise(best) for step in (a, (b[0], a[1]))]
    drawing.path([*steps, best[-1]], "frontier")
    ordered = sorted(points, key=lambda point: not point.is_best)
    places = [(scale.at(point.x), upright.at(point.y)) for point in ordered]
    for point, (x, y), label in zip(ordered, places, free_positions([(y, x) for x, y in places], 13), strict=True):
        drawing.mark(x, y, point.style, f"{point.label}: {format_number(point.x)} {x_unit}, {point.y:.1%}")
        drawing.text(x + 9, label + 4, point.label.partition(" ")[0], "value" if point.is_best else "tick")
    return drawing


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A measurement in a series: when, its interval, and a number that marks a change, or 0."""

    at: float
    value: float
    low: float | None
    high: float | None
    change: int = 0


def draw_timeline(moments: Sequence[Moment], dates: tuple[str, str], unit: str, width: float) -> Drawing:
    """Draw measurements in their order in time, with a numbered line wherever something changed."""
    height, left = 190.0, 52.0
    values = [one for moment in moments for one in (moment.value, moment.low, moment.high) if one is not None]
    span = max(max(values) - min(values), 0.04 * max(values))
    upright = Scale(low=max(min(values) - 0.25 * span, 0.0), high=max(values) + 0.25 * span, start=height, end=26)
    first, last = moments[0].at, moments[-1].at
    across = Scale(low=first, high=max(last, first + 1.0), start=left + 14, end=width - 14)
    drawing = Drawing(width, height + _FOOT - 14)
    for value in upright.ticks(4):
        drawing.line(left, upright.at(value), width, upright.at(value), "grid")
        drawing.text(left - 6, upright.at(value) + 4, format_number(value), "tick", "end")
    drawing.text(0, 12, unit, "axis")
    drawing.text(across.start, height + 17, dates[0], "tick")
    drawing.text(across.end, height + 17, dates[1], "tick", "end")
    for moment in moments:
        if moment.change:
            x = across.at(moment.at)
            drawing.line(x, 26, x, height, "change")
            drawing.text(x, 20, str(moment.change), "value", "middle")
    drawing.path([(across.at(one.at), upright.at(one.value)) for one in moments], "series")
    for moment in moments:
        x, y = across.at(moment.at), upright.at(moment.value)
        if moment.low is not None and moment.high is not None:
            drawing.line(x, upright.at(moment.low), x, upright.at(moment.high), "whisker measured")
        drawing.mark(x, y, "measured", f"{format_number(moment.value)} {unit}")
    return drawing
