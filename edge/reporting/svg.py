"""Write SVG figures whose colors are those of the page, so that they follow its dark and light theme.

A figure is drawn in CSS pixels: once for a desktop, once for a phone, so that its text has a readable size on both.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

from edge.console.text import printable

WIDE, NARROW = 940.0, 350.0  # the widths in which figures are drawn, in pixels
_CHARACTER = 7.2  # at 12 pixels; a little more than the mean, because names in capitals are wider


def text_width(text: str) -> float:
    """Return the approximate width of a text in a figure."""
    return _CHARACTER * len(text)


def shorten(text: str, width: float) -> str:
    """Return the text, cut in its middle to a width: names often differ at their ends."""
    most = max(int(width / _CHARACTER), 3)
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1].rstrip()}…{text[len(text) - tail :].lstrip()}"


def escape(text: object) -> str:
    """Escape a text for HTML and SVG; control characters, which neither allows, are replaced."""
    return html.escape(printable(str(text)))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values to positions: linear from `low` to `high`, or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value; those beyond the ends are at the ends."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at most about `most` round values on the scale."""
        if not self.is_log:
            step = _round_step((self.high - self.low) / most)
            first = math.ceil(self.low / step - 1e-9)
            return [step * place for place in range(first, int(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [digit * 10.0**power for power in decades for digit in digits]
            found = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(found) <= most:
                break
        return found


def scale_of(values: list[float], start: float, end: float) -> Scale:
    """Return a scale for positive values: logarithmic if they differ by more than a factor of eight, else from 0."""
    low, high = min(values), max(values)
    if low > 0 and high > 8 * low:
        return Scale(low=low / 1.15, high=high * 1.15, start=start, end=end, is_log=True)
    return Scale(low=0.0, high=high * 1.05 or 1.0, start=start, end=end)


def format_number(value: float) -> str:
    """Return a number with three digits: 0.0123, 12.3, 1,230."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if raw <= step * power * 1.0001)


class Drawing:
    """The shapes of a figure; classes are those of the page's style sheet."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._shapes: list[str] = []

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """Write a text whose baseline starts, has its middle, or ends at a point."""
        aligned = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._shapes.append(f'<text x="{x:.1f}" y="{y:.1f}"{_class(style)}{aligned}>{escape(text)}</text>')

    def line(self, x0: float, y0: float, x1: float, y1: float, style: str) -> None:
        """Draw a line."""
        self._shapes.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"{_class(style)}/>')

    def rectangle(self, x: float, y: float, width: float, height: float, style: str, hint: str = "") -> None:
        """Draw a rectangle; the hint appears below the pointer."""
        at = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
        self._shapes.append(f"<rect {at}{_class(style)}>{_hint(hint)}</rect>")

    def path(self, points: list[tuple[float, float]], style: str, *, is_closed: bool = False, hint: str = "") -> None:
        """Draw straight lines through points."""
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = "polygon" if is_closed else "polyline"
        self._shapes.append(f'<{kind} points="{words}"{_class(style)}>{_hint(hint)}</{kind}>')

    def mark(self, x: float, y: float, style: str, hint: str = "") -> None:
        """Draw the mark of a kind of number: measured a disk, published a ring, estimated a diamond."""
        if style == "estimated":
            self.path([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], style, is_closed=True, hint=hint)
        else:
            self._shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"{_class(style)}>{_hint(hint)}</circle>')

    def grid(self, scale: Scale, top: float, bottom: float, unit: str) -> None:
        """Draw the vertical lines of a horizontal axis, with their values below, and its unit."""
        previous = -math.inf
        for value in scale.ticks(max(int((scale.end - scale.start) / 70), 2)):
            x, label = scale.at(value), format_number(value)
            self.line(x, top, x, bottom, "grid")
            if x - previous > text_width(label) + 8:
                self.text(x, bottom + 15, label, "tick", "middle")
                previous = x
        self.text((scale.start + scale.end) / 2, bottom + 31, unit, "axis", "middle")

    def render(self, identifier: str, title: str, description: str) -> str:
        """Return the SVG element; the title and the description are for screen readers."""
        names = f'aria-labelledby="{identifier}-title {identifier}-description"'
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        head = f'<title id="{identifier}-title">{escape(title)}</title>'
        head += f'<desc id="{identifier}-description">{escape(description)}</desc>'
        return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {names}>{head}{"".join(self._shapes)}</svg>'


def free_positions(wanted: list[tuple[float, float]], height: float) -> Iterator[float]:
    """Yield a vertical position for each label so that none covers another.

    wanted: The vertical position and the horizontal one of each label; labels 30 pixels apart do not collide.
    """
    placed: list[tuple[float, float]] = []
    for y, x in wanted:
        shifts = sorted((sign * step * height for step in range(len(wanted) + 1) for sign in (1, -1)), key=abs)
        at = next(
            y + shift
            for shift in shifts
            if all(abs(y + shift - other) >= height or abs(x - beside) > 30 for other, beside in placed)
        )
        placed.append((at, x))
        yield at


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def _hint(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
