"""The rows of language models as text, Markdown or CSV: speeds, what bounds them, and what others printed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge.bench.findings import Finding
from edge.bench.rows import Row
from edge.bench.tables import NONE, Column, aligned, failed, machines, markdown
from edge.terminal import wrapped

_MOST_PUBLISHED = 12
_GB = 1e9
_CSV_KEYS = (
    "setup",
    "status",
    "runtime",
    "runtime_version",
    "artifact",
    "precision",
    "threads",
    "batch_threads",
    "memory",
    "device",
    "ttft_ms",
    "median_ms",
    "load_ms",
    "first_ms",
    "peak_rss_bytes",
    "bytes_per_token",
    "read_bytes_s",
    "ceiling_tok_s",
    "ceiling_share",
    "tokens_per_joule",
    "message",
)


def _speed(prefix: str) -> Any:
    def cell(row: Row) -> str:
        test = next((test for test in row.get("tests", ()) if test["test"].startswith(prefix)), None)
        if test is None:
            return NONE
        spread = f" ± {test['sd_tok_s']:.2f}" if test["sd_tok_s"] is not None else ""
        return f"{test['test']}: {test['mean_tok_s']:.2f}{spread}"

    return cell


def _scaled(key: str, unit: float, digits: int) -> Any:
    return lambda row: NONE if row.get(key) is None else f"{row[key] / unit:.{digits}f}"


_COLUMNS = (
    Column("Model", lambda row: str(row["title"]), is_number=False),
    Column("Engine", lambda row: f"{row['runtime']} {row['runtime_version']}", is_number=False),
    Column("Type", lambda row: str(row["precision"]), is_number=False),
    Column("Threads", lambda row: f"{row['threads']}/{row['batch_threads']}"),
    Column("Reading [tok/s]", _speed("pp")),
    Column("Writing [tok/s]", _speed("tg")),
    Column("First token [ms]", _scaled("ttft_ms", 1, 0)),
    Column("Load [s]", _scaled("load_ms", 1e3, 2)),
    Column("Peak [MB]", _scaled("peak_rss_bytes", 1e6, 0)),
    Column("Ceiling [tok/s]", _scaled("ceiling_tok_s", 1, 1)),
    Column("Reached", lambda row: NONE if row.get("ceiling_share") is None else f"{row['ceiling_share']:.0%}"),
    Column("Tokens/J", _scaled("tokens_per_joule", 1, 2)),
)


def as_text(rows: Sequence[Row], found: Sequence[Finding], width: int | None = None) -> str:
    """For people: a table, how the ceiling came about, what to doubt, and the published speeds of the same class."""
    table = aligned(_COLUMNS, _measured(rows), width)
    notes = ["\n".join(wrapped(line, width) for line in lines) for lines in _notes(rows, found)]
    published = [_published(row) for row in _measured(rows)]
    return "\n\n".join(part for part in (table, *notes, *dict.fromkeys(published)) if part)


def as_markdown(rows: Sequence[Row], found: Sequence[Finding]) -> str:
    """For a README: the table, and the rest as lists."""
    notes = ["\n".join(f"* {line}" for line in lines) for lines in _notes(rows, found)]
    return "\n\n".join(part for part in (markdown(_COLUMNS, _measured(rows)), *notes) if part)


def as_csv(rows: Sequence[Row]) -> str:
    """One line a setup; the tests as columns `pp512_tok_s` and `pp512_sd`."""
    tests = list(dict.fromkeys(test["test"] for row in rows for test in row.get("tests", ())))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV_KEYS, *(name for test in tests for name in (f"{test}_tok_s", f"{test}_sd"))])
    for row in rows:
        by_name: Mapping[str, Row] = {test["test"]: test for test in row.get("tests", ())}
        speeds = [by_name.get(test, {}).get(key) for test in tests for key in ("mean_tok_s", "sd_tok_s")]
        writer.writerow([*(row.get(key) for key in _CSV_KEYS), *speeds])
    return text.getvalue().rstrip("\n")


def _measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "ok" or row.get("tests")]


def _notes(rows: Sequence[Row], found: Sequence[Finding]) -> Iterator[list[str]]:
    titles = {row["setup"]: row["title"] for row in rows}
    yield [failed(row) for row in rows if row["status"] != "ok"]
    yield [*machines(_measured(rows)), *_origin(_measured(rows))]
    yield [f"{titles.get(item.setup, 'this machine')}: {item.what} → {item.remedy}" for item in found]


def _origin(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    repeats = rows[0]["protocol"].get("repeats", 5)
    yield (
        f"reading: a prompt of random tokens; writing: one token after another, greedy; mean ± standard deviation of"
        f" {repeats} repetitions, as llama-bench reports them; threads: writing/reading"
    )
    for row in rows:
        if row.get("ceiling_tok_s"):
            yield (
                f"ceiling of {row['title']}: this machine reads {row['read_bytes_s'] / _GB:.1f} GB/s, and each token"
                f" reads {row['bytes_per_token'] / _GB:.3f} GB of weights; weights held by: {_HELD[row['memory']]}"
            )
    for note in dict.fromkeys(row["energy_note"] for row in rows if row["energy_note"]):
        yield f"energy is not measured: {note}"


_HELD = {
    "map": "mapping the file",
    "read": "reading them into memory, laid out anew for the CPU",
    None: "the engine's choice",
}


def _published(row: Row) -> str:
    """What others printed for the same class, marked as theirs."""
    rows = row["published"]
    size = f"{counted(row['model']['parameters'])} parameters"
    if not rows:
        return f"Published speeds: none known here for a model of {size} with weights of this class."
    columns = (
        Column("Published", lambda one: f"{one['device']}, {one['accelerator']}", is_number=False),
        Column("Model", lambda one: f"{one['model']} {one['quant']}", is_number=False),
        Column("Runtime", lambda one: one["runtime"], is_number=False),
        Column("Reading", lambda one: NONE if one["read_tok_s"] is None else f"{one['read_tok_s']:.1f}"),
        Column("Writing", lambda one: f"{one['write_tok_s']:.1f}"),
        Column("Year", lambda one: one["year"]),
    )
    picked = _spaced(rows)
    left = f", {len(rows) - len(picked)} more with --json" if len(rows) > len(picked) else ""
    sources = dict.fromkeys(one["source"] for one in picked)
    heading = f"Published by others for about {size} with weights of the same class [tok/s], not measured here{left}:"
    return "\n".join([heading, aligned(columns, picked, None), *(f"  {source}" for source in sources)])


def counted(number: float) -> str:
    """A large number for people: `6.74 billion`, `260 thousand`."""
    for unit, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= unit:
            return f"{number / unit:.3g} {word}"
    return f"{number:.0f}"


def _spaced(rows: Sequence[Row]) -> list[Row]:
    """A dozen rows from the fastest to the slowest, evenly spaced over the ranks."""
    if len(rows) <= _MOST_PUBLISHED:
        return list(rows)
    step = (len(rows) - 1) / (_MOST_PUBLISHED - 1)
    return [rows[round(place * step)] for place in range(_MOST_PUBLISHED)]
