"""Format the profile of a setup: its operators, slowest first, and a row for what lies outside of them.

Where a run has a model in fp32 and in int8 on the same engine, a table shows which operators gain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from edge.benchmark.rows import Row
from edge.benchmark.tables import NONE, Column, format_aligned, format_markdown
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
    yield from _sections(rows, lambda lines: format_aligned(_COLUMNS, lines, width))
    yield from _gain_sections(rows, lambda gains: format_aligned(_GAINS, gains, width))


def markdown_sections(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the profiles for a README."""
    yield from _sections(rows, lambda lines: format_markdown(_COLUMNS, lines))
    yield from _gain_sections(rows, lambda gains: format_markdown(_GAINS, gains))


@dataclass(frozen=True, kw_only=True)
class OperatorGain:
    """The time of all operators of a type, in fp32 and in int8; None if the engine runs none of them."""

    type: str
    fp32_ms: float | None
    int8_ms: float | None


_GAINS: tuple[Column[OperatorGain], ...] = (
    Column("Type", lambda one: one.type, is_number=False),
    Column("fp32 [ms]", lambda one: NONE if one.fp32_ms is None else f"{one.fp32_ms:.4f}"),
    Column("int8 [ms]", lambda one: NONE if one.int8_ms is None else f"{one.int8_ms:.4f}"),
    Column("fp32 / int8", lambda one: f"{one.fp32_ms / one.int8_ms:.2f}×" if one.fp32_ms and one.int8_ms else NONE),
)
# What engines add to the type of an operator that they run in int8 or fused: QLinearConv, ConvInteger, FusedConv.
_FORMS = re.compile("^(QLinear|Fused|Q(?=Gemm|Attention))|Integer$")


def operator_gains(fp32: ProfileSummary, int8: ProfileSummary) -> list[OperatorGain]:
    """Sum the times by type of operator, the largest difference first; what is outside operators is the last."""
    before, after = _by_type(fp32), _by_type(int8)
    found = [
        OperatorGain(type=name, fp32_ms=before.get(name), int8_ms=after.get(name))
        for name in dict.fromkeys([*before, *after])
    ]
    found.sort(key=lambda one: -abs((one.fp32_ms or 0.0) - (one.int8_ms or 0.0)))
    return [*found, OperatorGain(type=OUTSIDE, fp32_ms=fp32["outside_ms"], int8_ms=int8["outside_ms"])]


def _by_type(profile: ProfileSummary) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in profile["operators"]:
        name = _FORMS.sub("", one["type"] or one["name"])
        found[name] = found.get(name, 0.0) + one["ms"]
    return found


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield each fp32 row with each int8 row of the same engine, threads, device and machine."""
    for fp32, int8 in product(rows, rows):
        if (fp32.precision, int8.precision) == ("fp32", "int8") and _where(fp32) == _where(int8):
            yield fp32, int8


def _where(row: Row) -> tuple[object, ...]:
    return row.runtime, row.threads, row.device, row.host, row.batch


def _sections(rows: Sequence[Row], table: Callable[[Sequence[_Line]], str]) -> Iterator[str]:
    for row in rows:
        if row.profile is not None:
            runs = row.profile["runs"]
            intro = f"{row.title}: operators in the mean of {runs} runs with the profiler, which slows them down"
            yield f"{intro}\n\n{table(list(_lines(row.profile)))}"
        elif row.profile_note:
            yield f"{row.title}: no profile: {row.profile_note}"


def _gain_sections(rows: Sequence[Row], table: Callable[[Sequence[OperatorGain]], str]) -> Iterator[str]:
    for fp32, int8 in _pairs([row for row in rows if row.profile is not None]):
        assert fp32.profile is not None
        assert int8.profile is not None
        intro = f"{int8.title} beside {fp32.title}: which types of operators gain"
        yield f"{intro}\n\n{table(operator_gains(fp32.profile, int8.profile))}"


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
