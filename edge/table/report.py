"""Format the table as Markdown, CSV or JSON, with the footnotes that explain its numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from edge.table.rows import NOT_EVALUATED, TableRow

HEADER = ("Setup", "Source", "Time [s]", "fps", "Top-1", "Score", "Raw")
ENERGY = "Energy [J]"  # of one classification; the last column, if any row has it
_CSV_KEYS = ("id", "setup", "kind", "source", "time_s", "fps", "top1", "score", "raw")
_NUMBERS = (2, 3, 5, 6, 7)  # right-aligned columns


def as_markdown(rows: Sequence[TableRow], notes: Sequence[str]) -> str:
    """Format the table for people, in a terminal or a README: Markdown with aligned columns and the notes below."""
    has_energy = any(row.joules is not None for row in rows)
    header = (*HEADER, ENERGY) if has_energy else HEADER
    cells = [header, *(_cells(row)[: len(header)] for row in rows)]
    # The reason in an absent row may extend over its empty cells, so it does not widen the column.
    with_values = [header, *(_cells(row) for row in rows if row.kind in ("published", "measured"))]
    widths = [max(len(line[i]) for line in (with_values if i == 1 else cells)) for i in range(len(header))]
    ruler = "|" + "|".join("-" * (w + 1) + (":" if i in _NUMBERS else "-") for i, w in enumerate(widths)) + "|"
    lines = [_line(line, widths) for line in cells]
    return "\n".join([lines[0], ruler, *lines[1:], "", *notes])


def as_csv(rows: Sequence[TableRow]) -> str:
    """Format one line per row, in full precision; cells without a value are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_CSV_KEYS, "energy_per_run_j"))
    for row in rows:
        writer.writerow((*(getattr(row, key) for key in _CSV_KEYS), row.joules))
    return text.getvalue().rstrip("\n")


def as_json(rows: Sequence[TableRow]) -> str:
    """Format a list of rows with the keys of `edge bench --json`, plus those of the table."""
    return json.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False)


def _cells(row: TableRow) -> tuple[str, ...]:
    if row.kind in ("absent", "failed"):
        return (row.setup, row.source, "", "", "", "", "", "")
    unknown = NOT_EVALUATED if row.top1 == NOT_EVALUATED else "–"
    return (
        row.setup,
        row.source,
        _number(row.time_s, 2),
        _number(row.fps, 2),
        row.top1 or "–",
        _number(row.score, 4, unknown),
        _number(row.raw, 4, "–"),
        _number(row.joules, 3, "–"),
    )


def _number(value: float | None, digits: int, missing: str = "–") -> str:
    return missing if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if i in _NUMBERS else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"
