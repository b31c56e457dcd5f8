"""Format rows as a table: aligned for a terminal, as blocks if the terminal is too narrow, or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from edge.benchmark.rows import Row

T = TypeVar("T")
NONE = "–"


class Column(NamedTuple, Generic[T]):
    """One column of a table.

    title: Its heading.
    cell: Returns the cell of a row, `NONE` if there is no value.
    is_number: Whether the cells are numbers, which are right-aligned.
    """

    title: str
    cell: Callable[[T], str]
    is_number: bool = True


def format_aligned(columns: Sequence[Column[T]], rows: Sequence[T], width: int | None) -> str:
    """Format the columns that have a value in at least one row; as blocks of lines if they do not fit into `width`."""
    columns = _select_columns(columns, rows)
    cells = _cells(columns, rows)
    lines = [_line(line, cells, columns) for line in cells] if len(cells) > 1 else []
    is_narrow = width is not None and max(map(len, lines), default=0) > width
    return _blocks(cells) if is_narrow else "\n".join(lines)


def format_markdown(columns: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """Format the same columns as a Markdown table; empty if there are no rows."""
    columns = _select_columns(columns, rows)
    cells = [[cell.replace("|", "\\|") for cell in line] for line in _cells(columns, rows)]
    ruler = ["---:" if column.is_number else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], ruler, *cells[1:])) if len(cells) > 1 else ""


def explain_failure(row: Row) -> str:
    """Explain why a setup was not measured, and what to do."""
    return f"{row.title}: {row.status}: {row.message}" + (f" → {row.hint}" if row.hint else "")


def describe_machines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each machine that rows were measured on."""
    for machine in distinct(row.machine or {} for row in rows):
        name = machine.get("board") or machine.get("cpu")
        yield f"measured on {name}, {machine.get('logical_cores')} cores, {machine.get('os')}"


def distinct(values: Iterable[T]) -> list[T]:
    """Remove duplicates, keeping the order. The values may be JSON objects, which are not hashable."""
    kept: list[T] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _select_columns(columns: Sequence[Column[T]], rows: Sequence[T]) -> list[Column[T]]:
    return [column for column in columns if any(column.cell(row) != NONE for row in rows)]


def _cells(columns: Sequence[Column[T]], rows: Sequence[T]) -> list[list[str]]:
    return [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]


def _line(line: Sequence[str], cells: Sequence[Sequence[str]], columns: Sequence[Column[T]]) -> str:
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
