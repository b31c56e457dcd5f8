"""Format the rows of a benchmark as text, Markdown, CSV or JSON, with their origin and reasons to doubt them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from edge.benchmark.compare import Comparison
from edge.benchmark.profile_report import markdown_sections, text_sections
from edge.benchmark.ranking import Rank, is_same
from edge.benchmark.rows import Row
from edge.benchmark.tables import (
    NONE,
    Column,
    describe_machines,
    distinct,
    explain_failure,
    format_aligned,
    format_markdown,
)
from edge.benchmark.warnings import Finding
from edge.console.text import wrap
from runtimes.artifact.json_fields import JsonObject
from runtimes.measurement.statistics import Interval, fewest_runs


def _ms(key: str) -> Callable[[Row], str]:
    return lambda row: NONE if getattr(row, key) is None else _number(getattr(row, key))


def _number(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")  # four digits, including trailing zeros: 12.90 next to 10.64


def _interval(row: Row) -> str:
    if row.low_ms is None or row.high_ms is None:
        return NONE
    return f"{_number(row.low_ms)}…{_number(row.high_ms)}"


def _streams(row: Row) -> str:
    found = row.throughput
    return NONE if found is None else f"{found['fps']:.4g} ({found['streams']} × {found['threads']} threads)"


def _megabytes(row: Row) -> str:
    return f"{row.peak_rss_bytes / 1e6:.0f}" if row.peak_rss_bytes else NONE


def _engine(row: Row) -> str:
    return " ".join(word for word in (row.runtime, row.runtime_version) if word) or NONE


_COLUMNS: tuple[Column[Row], ...] = (
    Column("Setup", lambda row: str(row.title), is_number=False),
    Column("Engine", _engine, is_number=False),
    Column("Threads", lambda row: str(row.threads or NONE)),
    Column("Precision", lambda row: str(row.precision or NONE), is_number=False),
    Column("Median [ms]", _ms("median_ms")),
    Column("95 % interval", _interval),
    Column("fps", lambda row: NONE if row.fps is None else f"{row.fps:.4g}"),
    Column("fps, streams", lambda row: _streams(row)),
    Column("Mean", _ms("mean_ms")),
    Column("p90", _ms("p90_ms")),
    Column("p95", _ms("p95_ms")),
    Column("Loop [s]", _ms("total_s")),
    Column("Runs", lambda row: str(len(row.samples_ms))),
    Column("Load [ms]", _ms("load_ms")),
    Column("First [ms]", _ms("first_ms")),
    Column("Peak [MB]", _megabytes),
    Column("Energy [J]", _ms("energy_per_run_j")),
)
# The keys of a row that hold a single value.
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
    ranks: Sequence[Rank] = (),
) -> str:
    """Format for a terminal: aligned columns, then the origin of the numbers, findings, the comparison, the ranking.

    If the columns do not fit into `width` characters, each setup is a block of lines, and notes are wrapped.
    """
    table = format_aligned(_COLUMNS, _select_measured(rows), width)
    sections = ["\n".join(wrap(line, width) for line in lines) for lines in _notes(rows, found, compared, ranks)]
    return "\n\n".join(part for part in (table, *sections, *text_sections(rows, width)) if part)


def as_markdown(
    rows: Sequence[Row],
    found: Sequence[Finding] = (),
    compared: Sequence[Comparison] = (),
    ranks: Sequence[Rank] = (),
) -> str:
    """Format for a README: a table, followed by lists."""
    table = format_markdown(_COLUMNS, _select_measured(rows))
    sections = ["\n".join(f"* {line}" for line in lines) for lines in _notes(rows, found, compared, ranks)]
    return "\n\n".join(part for part in (table, *sections, *markdown_sections(rows)) if part)


def as_csv(rows: Sequence[Row]) -> str:
    """Format one line per setup, in full precision; cells without a value are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_KEYS)
    writer.writerows([values.get(key) for key in _CSV_KEYS] for values in (row.to_json() for row in rows))
    return text.getvalue().rstrip("\n")


def as_json(
    rows: Sequence[Row],
    found: Sequence[Finding] = (),
    compared: Sequence[Comparison] = (),
    ranks: Sequence[Rank] = (),
) -> str:
    """Format `documents` as JSON text, which `--compare` reads."""
    # One line per row: indentation would put each of a hundred thousand samples on a line of its own.
    lines = [json.dumps(document, ensure_ascii=False) for document in documents(rows, found, compared, ranks)]
    return "[\n" + ",\n".join(lines) + "\n]"


def documents(
    rows: Sequence[Row], found: Sequence[Finding], compared: Sequence[Comparison], ranks: Sequence[Rank] = ()
) -> list[JsonObject]:
    """Return the rows as JSON objects, each with its `findings`, and `comparison` and `rank` where there are any."""
    by_setup = {item.setup: item for item in compared}
    places = {rank.setup: rank for rank in ranks}
    return [
        {
            **row.to_json(),
            "findings": [_finding(item) for item in found if item.setup in (row.setup, None)],
            **({"comparison": _comparison(by_setup[row.setup])} if row.setup in by_setup else {}),
            **({"rank": _rank(places[row.setup])} if row.setup in places else {}),
        }
        for row in rows
    ]


def _finding(item: Finding) -> JsonObject:
    return {"what": item.what, "remedy": item.remedy, "about": "this machine" if item.setup is None else item.setup}


def _comparison(item: Comparison) -> JsonObject:
    return {
        "verdict": item.verdict,
        "ratio": _interval_object(item.ratio),
        "interval": [item.ratio.low, item.ratio.high] if item.ratio else None,
        "confidence": item.confidence,
        "statistic": item.statistic,
        "rounds": list(item.rounds),
        "baseline": item.baseline,
        "notes": list(item.notes),
    }


def _rank(item: Rank) -> JsonObject:
    return {
        "place": item.place,
        "tied": item.is_tied,
        "fastest": item.fastest,
        "slowdown": _interval_object(item.slowdown),
    }


def _interval_object(ratio: Interval | None) -> JsonObject | None:
    return None if ratio is None else {"low": ratio.low, "value": ratio.value, "high": ratio.high}


def _select_measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.samples_ms]


def _notes(
    rows: Sequence[Row], found: Sequence[Finding], compared: Sequence[Comparison], ranks: Sequence[Rank]
) -> Iterator[list[str]]:
    """Yield the sections below the table: failures, origin of the numbers, findings, comparison, ranking."""
    titles = {row.setup: row.title for row in rows}
    yield [explain_failure(row) for row in rows if row.status != "ok"]
    yield list(_origin(rows))
    yield [f"{titles.get(item.setup or '', 'this machine')}: {item.what} → {item.remedy}" for item in found]
    yield [f"{titles[item.setup]}: {_verdict(item, titles)}" for item in compared]
    yield list(_ranking(ranks, titles))


def _origin(rows: Sequence[Row]) -> Iterator[str]:
    """Describe how the numbers were measured, once for all rows that share a description."""
    measured = _select_measured(rows)
    yield from describe_machines(measured)
    for kind in distinct(row.input["kind"] for row in measured if row.input):
        yield f"input: {_INPUTS.get(kind, kind)}"
    for key, share in (("p90_ms", 0.90), ("p95_ms", 0.95)):
        if any(getattr(row, key) is None for row in measured):
            yield f"p{share * 100:.0f} needs {fewest_runs(share)} runs and is left out if there are fewer"
    for source in distinct(row.energy_source for row in measured if row.energy_source):
        yield f"energy per run, including idle power, from {source}"
    for note in distinct(row.energy_note for row in measured if row.energy_note):
        yield f"energy is not measured: {note}"


_INPUTS = {
    "synthetic": "seeded random numbers, free dimensions 1 (choose another with --input)",
    "picture": "one picture, the same in every run",
    "trtexec": "random numbers from trtexec, which also took the times: to the GPU, compute, back; outputs not checked",
    "arrays": "the first sample of the input file, the same in every run",
}


def _verdict(item: Comparison, titles: Mapping[str, str]) -> str:
    than = f", measured in turn with {titles[item.baseline]}" if item.baseline else ""
    new, old = item.rounds
    rounds = f"{new} rounds" if new == old else f"{new} and {old} rounds"
    ratio = ""
    if item.ratio:
        interval = f"{item.ratio.low:.3f}…{item.ratio.high:.3f}"
        ratio = f" (new/old time {item.ratio.value:.3f}, {interval}; {item.statistic} of each of {rounds})"
    return f"{item.verdict}{ratio}{than}" + "".join(f"; {note}" for note in item.notes)


def _ranking(ranks: Sequence[Rank], titles: Mapping[str, str]) -> Iterator[str]:
    for rank in ranks:
        if rank.slowdown is None:
            continue
        fastest, other = titles[rank.fastest], titles[rank.setup]
        times = f"{rank.slowdown.value:.2f} [{rank.slowdown.low:.2f}, {rank.slowdown.high:.2f}]"
        if rank.place > 1:
            yield f"{fastest} is {times.replace(' ', f'× as fast as {other} ', 1)}"
        elif is_same(rank):
            yield f"{fastest} and {other} are equally fast, the ratio of their times is {times}"
        else:
            yield f"{fastest} and {other} share a place, the ratio of their times is {times}: use more --rounds"
