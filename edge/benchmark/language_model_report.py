"""Format the rows of language models as text, Markdown or CSV: speeds, their upper bound, and published speeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from device_profiles.published.language_models import PublishedSpeed
from edge.benchmark.bill import Bill, BillLine
from edge.benchmark.language_model import TextRow
from edge.benchmark.tables import NONE, Column, describe_machines, explain_failure, format_aligned, format_markdown
from edge.benchmark.warnings import Finding
from edge.console.text import wrap

_MAX_PUBLISHED = 12
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


def _speed(prefix: str) -> Callable[[TextRow], str]:
    def cell(row: TextRow) -> str:
        test = row.speed(prefix)
        if test is None:
            return NONE
        spread = f" ± {test.sd_tok_s:.2f}" if test.sd_tok_s is not None else ""
        return f"{test.test}: {test.mean_tok_s:.2f}{spread}"

    return cell


def _scaled(key: str, unit: float, digits: int) -> Callable[[TextRow], str]:
    return lambda row: NONE if getattr(row, key) is None else f"{getattr(row, key) / unit:.{digits}f}"


_COLUMNS: tuple[Column[TextRow], ...] = (
    Column("Model", lambda row: str(row.title), is_number=False),
    Column("Engine", lambda row: f"{row.runtime} {row.runtime_version}", is_number=False),
    Column("Type", lambda row: str(row.precision), is_number=False),
    Column("Threads", lambda row: f"{row.threads}/{row.batch_threads}"),
    Column("Reading [tok/s]", _speed("pp")),
    Column("Writing [tok/s]", _speed("tg")),
    Column("First token [ms]", _scaled("ttft_ms", 1, 0)),
    Column("Load [s]", _scaled("load_ms", 1e3, 2)),
    Column("Peak [MB]", _scaled("peak_rss_bytes", 1e6, 0)),
    Column("Ceiling [tok/s]", _scaled("ceiling_tok_s", 1, 1)),
    Column("Reached", lambda row: NONE if row.ceiling_share is None else f"{row.ceiling_share:.0%}"),
    Column("Tokens/J", _scaled("tokens_per_joule", 1, 2)),
)


def as_text(rows: Sequence[TextRow], found: Sequence[Finding], width: int | None = None) -> str:
    """Format for a terminal: a table, the origin of the ceiling, findings, and published speeds of the same class."""
    table = format_aligned(_COLUMNS, _select_measured(rows), width)
    notes = ["\n".join(wrap(line, width) for line in lines) for lines in _notes(rows, found)]
    published = [_published(row) for row in _select_measured(rows)]
    bills = [_bill(row.bill, width) for row in rows if row.bill is not None]
    return "\n\n".join(part for part in (table, *notes, *dict.fromkeys(published), *bills) if part)


def as_markdown(rows: Sequence[TextRow], found: Sequence[Finding]) -> str:
    """Format for a README: a table, followed by lists."""
    notes = ["\n".join(f"* {line}" for line in lines) for lines in _notes(rows, found)]
    bills = [
        f"{_bill_heading(bill)}\n\n{format_markdown(_BILL_COLUMNS, bill.lines)}"
        for row in rows
        if (bill := row.bill) is not None
    ]
    return "\n\n".join(part for part in (format_markdown(_COLUMNS, _select_measured(rows)), *notes, *bills) if part)


def as_csv(rows: Sequence[TextRow]) -> str:
    """Format one line per setup, with the tests as columns `pp512_tok_s` and `pp512_sd`."""
    tests = list(dict.fromkeys(test.test for row in rows for test in row.tests))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV_KEYS, *(name for test in tests for name in (f"{test}_tok_s", f"{test}_sd"))])
    for row in rows:
        by_name = {test.test: test for test in row.tests}
        speeds = [by_name.get(test) for test in tests]
        cells = [cell for speed in speeds for cell in ((speed.mean_tok_s, speed.sd_tok_s) if speed else (None, None))]
        values = row.to_json()
        writer.writerow([*(values.get(key) for key in _CSV_KEYS), *cells])
    return text.getvalue().rstrip("\n")


def _select_measured(rows: Sequence[TextRow]) -> list[TextRow]:
    return [row for row in rows if row.status == "ok" or row.tests]


def _notes(rows: Sequence[TextRow], found: Sequence[Finding]) -> Iterator[list[str]]:
    titles = {row.setup: row.title for row in rows}
    yield [explain_failure(row) for row in rows if row.status != "ok"]
    yield [*describe_machines(_select_measured(rows)), *_origin(_select_measured(rows))]
    yield [f"{titles.get(item.setup or '', 'this machine')}: {item.what} → {item.remedy}" for item in found]


def _origin(rows: Sequence[TextRow]) -> Iterator[str]:
    if not rows:
        return
    repeats = (rows[0].protocol or {}).get("repeats", 5)
    yield (
        f"reading: a prompt of random tokens; writing: one token after another, greedy; mean ± standard deviation of"
        f" {repeats} repetitions, as llama-bench reports them; threads: writing/reading"
    )
    for row in rows:
        if row.ceiling_tok_s and row.read_bytes_s and row.bytes_per_token:
            yield (
                f"ceiling of {row.title}: this machine reads {row.read_bytes_s / _GB:.1f} GB/s, and each token"
                f" reads {row.bytes_per_token / _GB:.3f} GB of weights; weights in memory: {_HELD[row.memory]}"
            )
    for note in dict.fromkeys(row.energy_note for row in rows if row.energy_note):
        yield f"energy is not measured: {note}"


_HELD = {
    "map": "memory-mapped file",
    "read": "read from the file and repacked for the CPU",
    None: "the engine's choice",
}


def _published(row: TextRow) -> str:
    """Format the speeds that others published for the same class, marked as theirs."""
    rows = row.published
    size = f"{format_count((row.model['parameters'] if row.model else None) or 0)} parameters"
    if not rows:
        return f"Published speeds: edge knows none for a model of {size} with weights of this class."
    columns: tuple[Column[PublishedSpeed], ...] = (
        Column("Published", lambda one: f"{one.device}, {one.accelerator}", is_number=False),
        Column("Model", lambda one: f"{one.model} {one.quant}", is_number=False),
        Column("Runtime", lambda one: one.runtime, is_number=False),
        Column("Reading", lambda one: NONE if one.read_tok_s is None else f"{one.read_tok_s:.1f}"),
        Column("Writing", lambda one: f"{one.write_tok_s:.1f}"),
        Column("Year", lambda one: str(one.year)),
    )
    picked = _thin_out(rows)
    left = f", {len(rows) - len(picked)} more with --json" if len(rows) > len(picked) else ""
    sources = dict.fromkeys(one.source for one in picked)
    heading = f"Published by others for about {size} with weights of the same class [tok/s], not measured here{left}:"
    return "\n".join([heading, format_aligned(columns, picked, None), *(f"  {source}" for source in sources)])


_BILL_COLUMNS: tuple[Column[BillLine], ...] = (
    Column("Bill", lambda line: line.name, is_number=False),
    Column("Kind", lambda line: line.kind, is_number=False),
    Column("Time", lambda line: NONE if line.seconds is None else _time(line.seconds)),
    Column("Power [W]", lambda line: NONE if line.watts is None else f"{line.watts:.3g} {line.watts_from}"),
    Column("Energy [kWh]", lambda line: NONE if line.kwh is None else f"{line.kwh:.2g}"),
    Column(
        "Cost [US$]",
        lambda line: NONE if line.usd is None else f"{line.usd:.3g}" if line.usd < 1 else f"{line.usd:.2f}",
    ),
)


def _bill(bill: Bill, width: int | None) -> str:
    """Format the bill: a table, and what each of its lines rests on."""
    sources = [f"  {line.name}: {line.note}" for line in bill.lines]
    return "\n".join([_bill_heading(bill), format_aligned(_BILL_COLUMNS, bill.lines, width), *sources])


def _bill_heading(bill: Bill) -> str:
    return (
        f"The bill for summarizing {bill.documents} e-mails, one after another: {bill.prompt_tokens} tokens in and"
        f" {bill.completion_tokens} out for each, at ${bill.price_kwh:.2f} per kWh ({bill.price_kwh_from}):"
    )


def _time(seconds: float) -> str:
    """Format a duration for people: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def format_count(number: float) -> str:
    """Format a large number for people: `6.74 billion`, `260 thousand`."""
    for unit, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= unit:
            return f"{number / unit:.3g} {word}"
    return f"{number:.0f}"


def _thin_out(rows: Sequence[PublishedSpeed]) -> list[PublishedSpeed]:
    """Select a dozen rows from the fastest to the slowest, evenly spaced by rank."""
    if len(rows) <= _MAX_PUBLISHED:
        return list(rows)
    step = (len(rows) - 1) / (_MAX_PUBLISHED - 1)
    return [rows[round(place * step)] for place in range(_MAX_PUBLISHED)]
