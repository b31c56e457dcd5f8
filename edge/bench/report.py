"""The rows of a benchmark as text, Markdown, CSV or JSON, with what made them and what to doubt."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence

from edge.bench.compare import Comparison
from edge.bench.findings import Finding
from edge.bench.rows import Row
from edge.bench.tables import NONE, Column, aligned, distinct, failed, machines, markdown
from edge.terminal import wrapped
from runtimes.stats import fewest_runs


def _ms(key: str) -> Callable[[Row], str]:
    return lambda row: NONE if row.get(key) is None else _number(row[key])


def _number(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")  # four digits, zeros at the end too: 12.90 beside 10.64


def _interval(row: Row) -> str:
    if row.get("low_ms") is None:
        return NONE
    return f"{_number(row['low_ms'])}…{_number(row['high_ms'])}"


def _megabytes(row: Row) -> str:
    return f"{row['peak_rss_bytes'] / 1e6:.0f}" if row.get("peak_rss_bytes") else NONE


def _engine(row: Row) -> str:
    return " ".join(str(row[key]) for key in ("runtime", "runtime_version") if row.get(key)) or NONE


_COLUMNS = (
    Column("Setup", lambda row: str(row["title"]), is_number=False),
    Column("Engine", _engine, is_number=False),
    Column("Threads", lambda row: str(row.get("threads") or NONE)),
    Column("Precision", lambda row: str(row.get("precision") or NONE), is_number=False),
    Column("Median [ms]", _ms("median_ms")),
    Column("95 % interval", _interval),
    Column("Mean", _ms("mean_ms")),
    Column("p90", _ms("p90_ms")),
    Column("p95", _ms("p95_ms")),
    Column("Loop [s]", _ms("total_s")),
    Column("Runs", lambda row: str(len(row["samples_ms"]))),
    Column("Load [ms]", _ms("load_ms")),
    Column("First [ms]", _ms("first_ms")),
    Column("Peak [MB]", _megabytes),
    Column("Energy [J]", _ms("energy_per_run_j")),
)
# Plain values for programs: the keys of a row that hold one.
_CSV_KEYS = (
    "setup",
    "status",
    "runtime",
    "runtime_version",
    "format",
    "artifact",
    "precision",
    "threads",
    "device",
    "median_ms",
    "low_ms",
    "high_ms",
    "mean_ms",
    "p90_ms",
    "p95_ms",
    "spread",
    "total_s",
    "import_ms",
    "load_ms",
    "first_ms",
    "peak_rss_bytes",
    "energy_per_run_j",
    "raw",
    "message",
)


def as_text(
    rows: Sequence[Row],
    found: Sequence[Finding] = (),
    compared: Sequence[Comparison] = (),
    width: int | None = None,
) -> str:
    """For people: aligned columns, and below them what made the numbers, what to doubt and the comparison.

    Where the columns would not fit into `width` characters, each setup is a block of lines, and notes are wrapped.
    """
    table = aligned(_COLUMNS, _measured(rows), width)
    sections = ["\n".join(wrapped(line, width) for line in lines) for lines in _notes(rows, found, compared)]
    return "\n\n".join(part for part in (table, *sections) if part)


def as_markdown(rows: Sequence[Row], found: Sequence[Finding] = (), compared: Sequence[Comparison] = ()) -> str:
    """For a README: a table, and the rest as lists."""
    table = markdown(_COLUMNS, _measured(rows))
    sections = ["\n".join(f"* {line}" for line in lines) for lines in _notes(rows, found, compared)]
    return "\n\n".join(part for part in (table, *sections) if part)


def as_csv(rows: Sequence[Row]) -> str:
    """One line a setup, in full precision; empty where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_KEYS)
    writer.writerows([row.get(key) for key in _CSV_KEYS] for row in rows)
    return text.getvalue().rstrip("\n")


def as_json(rows: Sequence[Row], found: Sequence[Finding] = (), compared: Sequence[Comparison] = ()) -> str:
    """The rows, each with its `findings` and, with --compare, its `comparison`; what `--compare` reads."""
    by_setup = {item.setup: item for item in compared}
    documents = [
        {
            **row,
            "findings": [_doubt(item) for item in found if item.setup in (row["setup"], None)],
            **({"comparison": _comparison(by_setup[row["setup"]])} if row["setup"] in by_setup else {}),
        }
        for row in rows
    ]
    # One line a row: an indented list would give each of a hundred thousand samples a line.
    return "[\n" + ",\n".join(json.dumps(document, ensure_ascii=False) for document in documents) + "\n]"


def _doubt(item: Finding) -> Row:
    return {"what": item.what, "remedy": item.remedy, "about": "this machine" if item.setup is None else item.setup}


def _comparison(item: Comparison) -> Row:
    ratio = item.ratio and {"low": item.ratio.low, "value": item.ratio.value, "high": item.ratio.high}
    return {"verdict": item.verdict, "ratio": ratio, "notes": list(item.notes)}


def _measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["samples_ms"]]


def _notes(rows: Sequence[Row], found: Sequence[Finding], compared: Sequence[Comparison]) -> Iterator[list[str]]:
    """The lines below the table in sections: what failed, what made the numbers, what to doubt, what has changed."""
    titles = {row["setup"]: row["title"] for row in rows}
    yield [failed(row) for row in rows if row["status"] != "ok"]
    yield list(_origin(rows))
    yield [f"{titles.get(item.setup, 'this machine')}: {item.what} → {item.remedy}" for item in found]
    yield [f"{titles[item.setup]}: {_verdict(item)}" for item in compared]


def _origin(rows: Sequence[Row]) -> Iterator[str]:
    """What made the numbers, said once for all rows that share it."""
    measured = _measured(rows)
    yield from machines(measured)
    for fed in distinct(row["input"]["kind"] for row in measured):
        yield f"input: {_INPUTS.get(fed, fed)}"
    for key, share in (("p90_ms", 0.90), ("p95_ms", 0.95)):
        if any(row[key] is None for row in measured):
            yield f"p{share * 100:.0f} needs {fewest_runs(share)} runs; where there are fewer it is not given"
    for source in distinct(row["energy_source"] for row in measured if row.get("energy_source")):
        yield f"energy of a run, idle power included, by {source}"
    for note in distinct(row["energy_note"] for row in measured if row["energy_note"]):
        yield f"energy is not measured: {note}"


_INPUTS = {
    "synthetic": "seeded random numbers, free dimensions 1 (choose another with --input)",
    "picture": "one picture, the same in every run",
    "trtexec": "random numbers of trtexec, whose own times these are: to the GPU, computing, back; no output was seen",
    "arrays": "the first sample of the file given, the same in every run",
}


def _verdict(item: Comparison) -> str:
    told = f" (new/old time {item.ratio.value:.3f}, {item.ratio.low:.3f}…{item.ratio.high:.3f})" if item.ratio else ""
    return f"{item.verdict}{told}" + "".join(f"; {note}" for note in item.notes)
