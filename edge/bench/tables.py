"""Columns over rows: aligned for a terminal, as blocks where that is too narrow, or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from edge.bench.rows import Row

T = TypeVar("T")
NONE = "–"


class Column(NamedTuple):
    """One column: its title, what it says of a row (`NONE` where there is nothing), and whether that is a number."""

    title: str
    cell: Callable[[Row], str]
    is_number: bool = True


def aligned(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> str:
    """The columns that say something for at least one row; blocks of lines where `width` is too narrow for them."""
    columns = _shown(columns, rows)
    cells = _cells(columns, rows)
    lines = [_line(line, cells, columns) for line in cells] if len(cells) > 1 else []
    is_narrow = width is not None and max(map(len, lines), default=0) > width
    return _blocks(cells) if is_narrow else "\n".join(lines)


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The same as a Markdown table; empty where there is no row."""
    columns = _shown(columns, rows)
    cells = [[cell.replace("|", "\\|") for cell in line] for line in _cells(columns, rows)]
    ruler = ["---:" if column.is_number else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], ruler, *cells[1:])) if len(cells) > 1 else ""


def failed(row: Row) -> str:
    """Why a setup was not measured, and what to do."""
    return f"{row['title']}: {row['status']}: {row['message']}" + (f" → {row['hint']}" if row["hint"] else "")


def machines(rows: Iterable[Row]) -> Iterator[str]:
    """Where the rows were measured, once for each machine."""
    for machine in distinct(row["machine"] for row in rows):
        yield f"measured on {machine['board'] or machine['cpu']}, {machine['logical_cores']} cores, {machine['os']}"


def distinct(values: Iterable[T]) -> list[T]:
    """The values in their order, each once; they may be objects of JSON, which no set takes."""
    kept: list[T] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _shown(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    return [column for column in columns if any(column.cell(row) != NONE for row in rows)]


def _cells(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    return [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]


def _line(line: Sequence[str], cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> str:
    parts = []
    for place, cell in enumerate(line):
        width = max(len(other[place]) for other in cells)
        parts.append(cell.rjust(width) if columns[place].is_number else cell.ljust(width))
    return "  ".join(parts).rstrip()


def _blocks(cells: Sequence[Sequence[str]]) -> str:
    titles, *setups = cells
    width = max(map(len, titles))
    blocks = [[f"{title.ljust(width)}  {cell}" for title, cell in zip(titles, line, strict=True)] for line in setups]
    return "\n\n".join("\n".join(block) for block in blocks)
