"""Format the profile of a setup: its operators, slowest first, and a row for what lies outside of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge.benchmark.rows import Row
from edge.benchmark.tables import Column, aligned, markdown
from runtimes.measurement.operator_times import ProfileSummary

MAX_ROWS = 20
OUTSIDE = "outside operators"


@dataclass(frozen=True, kw_only=True)
class _Line:
    name: str
    type: str
    placement: str
    ms: float
    share: float
    cumulative: float


_COLUMNS: tuple[Column[_Line], ...] = (
    Column("Operator", lambda line: line.name, is_number=False),
    Column("Type", lambda line: line.type, is_number=False),
    Column("Placement", lambda line: line.placement, is_number=False),
    Column("[ms]", lambda line: f"{line.ms:.4f}"),
    Column("Share", lambda line: f"{line.share:.1%}"),
    Column("Cumulative", lambda line: f"{line.cumulative:.1%}"),
)


def text_sections(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """Yield the profiles for a terminal."""
    yield from _sections(rows, lambda lines: aligned(_COLUMNS, lines, width))


def markdown_sections(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the profiles for a README."""
    yield from _sections(rows, lambda lines: markdown(_COLUMNS, lines))


def _sections(rows: Sequence[Row], table: Callable[[Sequence[_Line]], str]) -> Iterator[str]:
    for row in rows:
        if row.profile is not None:
            runs = row.profile["runs"]
            intro = f"{row.title}: operators in the mean of {runs} runs with the profiler, which slows them down"
            yield f"{intro}\n\n{table(list(_lines(row.profile)))}"
        elif row.profile_note:
            yield f"{row.title}: no profile: {row.profile_note}"


def _lines(profile: ProfileSummary) -> Iterator[_Line]:
    """Yield the slowest operators, the others in one line, and what is outside; the times add up to the whole."""
    total, cumulative = profile["total_ms"] or 1.0, 0.0
    shown, rest = profile["operators"][:MAX_ROWS], profile["operators"][MAX_ROWS:]
    parts = [(one["name"], one["type"], one["placement"], one["ms"]) for one in shown]
    if rest:
        parts.append((f"{len(rest)} more operators", "", "", sum(one["ms"] for one in rest)))
    parts.append((OUTSIDE, "", "", profile["outside_ms"]))
    for name, kind, placement, ms in parts:
        cumulative += ms / total
        yield _Line(name=name, type=kind, placement=placement, ms=ms, share=ms / total, cumulative=cumulative)
