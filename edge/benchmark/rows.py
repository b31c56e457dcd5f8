"""Combine raw measurements into one row per setup, with statistics.

A row is what `edge bench --json` writes and `--compare` reads; its fields are the JSON keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.benchmark.harness import Measurement
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue, to_json
from runtimes.errors import InputError, from_dict
from runtimes.measurement.answer import (
    BrowserSummary,
    ConditionsAround,
    InputSummary,
    MachineSummary,
    MeasureAnswer,
    OutputSummary,
    ScoredClass,
)
from runtimes.measurement.operator_times import ProfileSummary
from runtimes.measurement.statistics import median, median_interval, percentile, spread
from runtimes.measurement.throughput import ThroughputSummary

_OLD_HINT = "write it with `edge bench … --json --out FILE`"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One process: its share of the samples and its conditions, with the fields of `runtimes.measurement.answer`."""

    round: int = 0
    runs: int
    median_ms: float | None = None
    total_s: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: Sequence[float] | None = None
    peak_rss_bytes: int | None = None
    energy_j: float | None = None
    began_at: float | None = None
    other_cores: float | None = None
    conditions: ConditionsAround | None = None

    @classmethod
    def from_json(cls, fields: Fields) -> Round:
        """Read a round of an older run."""
        around: ConditionsAround | None = fields.values.get("conditions")
        return cls(
            round=fields.optional_integer("round") or 0,
            runs=fields.integer("runs"),
            median_ms=fields.optional_number("median_ms"),
            total_s=fields.optional_number("total_s"),
            import_ms=fields.optional_number("import_ms"),
            load_ms=fields.optional_number("load_ms"),
            first_ms=fields.optional_number("first_ms"),
            warmup_ms=fields.numbers("warmup_ms") if fields.has("warmup_ms") else None,
            peak_rss_bytes=fields.optional_integer("peak_rss_bytes"),
            energy_j=fields.optional_number("energy_j"),
            began_at=fields.optional_number("began_at"),
            other_cores=fields.optional_number("other_cores"),
            conditions=around,
        )


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of samples in ms; a value is None if there are too few runs for it.

    low_ms, high_ms: The limits of the median's 95 % interval.
    spread: IQR / median.
    """

    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    mean_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    spread: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row(Statistics):
    """One setup over all its rounds.

    setup, title: The setup's id and its name for people.
    model_sha256, edge_version: Which bytes were measured, and by which edge.
    host: The board that it was measured on; None is the machine that wrote the row.
    status: "ok" if every round succeeded, else the first failure.
    error, message, hint: Set only after a failure; the row still contains what was measured before it.
    samples_ms: The samples of all rounds, in order.
    total_s: Wall time of the timed loop, the median over the rounds; import_ms, load_ms and first_ms likewise.
    peak_rss_bytes: The maximum over the rounds.
    batch: The size of the batch, if one was asked for; throughput: That of several streams, likewise.
    profile: The times of the operators, of the first round; or None, with a reason in profile_note if it was asked for.
    energy_per_run_j: The median over the rounds, from energy_source; or None, with a reason in energy_note.
    """

    setup: str
    title: str = ""
    host: str | None = None
    status: str = "ok"
    error: str = ""
    message: str = ""
    hint: str = ""
    runtime: str | None = None
    runtime_version: str | None = None
    format: str | None = None
    artifact: str | None = None
    model_sha256: str | None = None
    edge_version: str | None = None
    precision: str | None = None
    threads: int | None = None
    device: str | None = None
    settings: Mapping[str, str] | None = None
    protocol: Mapping[str, JsonValue] | None = None
    machine: MachineSummary | None = None
    browser: BrowserSummary | None = None
    input: InputSummary | None = None
    output: OutputSummary | None = None
    energy_source: str | None = None
    energy_note: str | None = None
    top: Sequence[ScoredClass] = ()
    raw: float | None = None
    profile: ProfileSummary | None = None
    profile_note: str | None = None
    batch: int | None = None
    throughput: ThroughputSummary | None = None
    samples_ms: Sequence[float] = ()
    total_s: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_rss_bytes: int | None = None
    energy_per_run_j: float | None = None
    rounds: Sequence[Round] = field(default_factory=tuple)

    @property
    def is_ok(self) -> bool:
        """Whether every round succeeded."""
        return self.status == "ok"

    @property
    def fps(self) -> float | None:
        """Inferences a second, one after another; items of a batch count each."""
        return 1000 * (self.batch or 1) / self.median_ms if self.median_ms else None

    @property
    def exit_code(self) -> int:
        """The exit code of the failure; 0 if there was none."""
        return (
            0 if self.is_ok else from_dict({"error": self.error, "message": self.message, "hint": self.hint}).exit_code
        )

    def to_json(self) -> JsonObject:
        """Return the object that `edge bench --json` writes."""
        values = {**to_json(self), "fps": self.fps}
        if self.is_ok:
            for key in ("error", "message", "hint"):
                del values[key]
        for key in ("profile", "profile_note", "batch", "throughput"):
            if values[key] is None:
                del values[key]
        return values

    @classmethod
    def from_json(cls, fields: Fields) -> Row:
        """Read a row of an older run, which may lack keys. Raises InputError if it is not a row."""
        machine: MachineSummary | None = fields.values.get("machine")
        browser: BrowserSummary | None = fields.values.get("browser")
        input_summary: InputSummary | None = fields.values.get("input")
        output: OutputSummary | None = fields.values.get("output")
        top: Sequence[ScoredClass] = fields.values.get("top") or ()
        profile: ProfileSummary | None = fields.values.get("profile")
        throughput: ThroughputSummary | None = fields.values.get("throughput")
        row = cls(
            setup=fields.text("setup"),
            title=fields.optional_text("title") or fields.text("setup"),
            host=fields.optional_text("host"),
            status=fields.optional_text("status") or "ok",
            error=fields.optional_text("error") or "",
            message=fields.optional_text("message") or "",
            hint=fields.optional_text("hint") or "",
            runtime=fields.optional_text("runtime"),
            runtime_version=fields.optional_text("runtime_version"),
            format=fields.optional_text("format"),
            artifact=fields.optional_text("artifact"),
            model_sha256=fields.optional_text("model_sha256"),
            edge_version=fields.optional_text("edge_version"),
            precision=fields.optional_text("precision"),
            threads=fields.optional_integer("threads"),
            device=fields.optional_text("device"),
            settings=fields.texts_by_name("settings") if fields.has("settings") else None,
            protocol=fields.mapping("protocol") if fields.has("protocol") else None,
            machine=machine,
            browser=browser,
            input=input_summary,
            output=output,
            energy_source=fields.optional_text("energy_source"),
            energy_note=fields.optional_text("energy_note"),
            top=top,
            raw=fields.optional_number("raw"),
            profile=profile,
            profile_note=fields.optional_text("profile_note"),
            batch=fields.optional_integer("batch"),
            throughput=throughput,
            samples_ms=list(fields.numbers("samples_ms")),
            rounds=tuple(map(Round.from_json, fields.children("rounds"))) if fields.has("rounds") else (),
            **{key: fields.optional_number(key) for key in _NUMBERS},
            peak_rss_bytes=fields.optional_integer("peak_rss_bytes"),
        )
        if len(row.samples_ms) != sum(part.runs for part in row.rounds):
            raise fields.reject("samples_ms", "does not match the number of runs in its rounds")
        return row


_NUMBERS = (
    *("median_ms", "low_ms", "high_ms", "mean_ms", "p90_ms", "p95_ms", "spread"),
    *("total_s", "import_ms", "load_ms", "first_ms", "energy_per_run_j"),
)


def rows_of(measurements: Iterable[Measurement]) -> list[Row]:
    """Return one row per setup, in order of first appearance."""
    by_setup: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_setup.setdefault(measurement.setup.id, []).append(measurement)
    return [_row(group) for group in by_setup.values()]


def _row(group: Sequence[Measurement]) -> Row:
    done = [measurement for measurement in group if measurement.values.get("samples_ms")]
    nothing: MeasureAnswer = {}
    failed = next((measurement.values for measurement in group if not measurement.is_ok), nothing)
    setup = group[0].setup
    if not done:
        return Row(
            setup=setup.id,
            title=setup.title,
            host=setup.host,
            status=failed.get("status", "ok"),
            error=failed.get("error", ""),
            message=failed.get("message", ""),
            hint=failed.get("hint", ""),
            runtime=setup.runtime,
            threads=setup.options.threads,
            artifact=str(setup.artifact),
        )
    first = done[0].values
    metered = next((one.values for one in done if one.values.get("energy_j") is not None), first)
    samples = [sample for measurement in done for sample in measurement.values["samples_ms"]]
    rounds = [_round(measurement) for measurement in done]
    row = Row(
        setup=setup.id,
        title=setup.title,
        host=setup.host,
        status=failed.get("status", "ok"),
        error=failed.get("error", ""),
        message=failed.get("message", ""),
        hint=failed.get("hint", ""),
        runtime=first.get("runtime"),
        runtime_version=first.get("runtime_version"),
        format=first.get("format"),
        artifact=first.get("artifact"),
        model_sha256=first.get("model_sha256"),
        edge_version=first.get("edge_version"),
        precision=first.get("precision"),
        threads=first.get("threads"),
        device=first.get("device"),
        settings=first.get("settings"),
        protocol=first.get("protocol"),
        machine=first.get("machine"),
        browser=first.get("browser"),
        input=first.get("input"),
        output=first.get("output"),
        energy_source=metered.get("energy_source"),
        energy_note=metered.get("energy_note"),
        top=first.get("top") or (),
        raw=first.get("raw"),
        samples_ms=samples,
        rounds=rounds,
        total_s=_median_of_known(part.total_s for part in rounds),
        import_ms=_median_of_known(part.import_ms for part in rounds),
        load_ms=_median_of_known(part.load_ms for part in rounds),
        first_ms=_median_of_known(part.first_ms for part in rounds),
        peak_rss_bytes=max((part.peak_rss_bytes or 0 for part in rounds), default=0) or None,
        energy_per_run_j=_median_of_known(part.energy_j and part.energy_j / part.runs for part in rounds),
        **vars(compute_statistics(samples)),
    )
    return _with_extras(row, first)


def _with_extras(row: Row, first: MeasureAnswer) -> Row:
    """Add what was measured besides latencies, and only if it was asked for."""
    return replace(
        row,
        profile=first.get("profile"),
        profile_note=first.get("profile_note"),
        batch=first.get("batch"),
        throughput=first.get("throughput"),
    )


def compute_statistics(samples: Sequence[float]) -> Statistics:
    """Compute the statistics of samples in ms."""
    interval = median_interval(samples)
    return Statistics(
        median_ms=median(samples),
        low_ms=interval.low if interval else None,
        high_ms=interval.high if interval else None,
        mean_ms=sum(samples) / len(samples),
        p90_ms=percentile(samples, 0.90),
        p95_ms=percentile(samples, 0.95),
        spread=spread(samples),
    )


def round_samples(row: Row) -> list[Sequence[float]]:
    """Split the samples of a row by round."""
    start, parts = 0, []
    for part in row.rounds:
        parts.append(row.samples_ms[start : start + part.runs])
        start += part.runs
    return parts


def _round(measurement: Measurement) -> Round:
    values = measurement.values
    samples = values["samples_ms"]
    return Round(
        round=measurement.round,
        runs=len(samples),
        median_ms=median(samples),
        total_s=values.get("total_s"),
        import_ms=values.get("import_ms"),
        load_ms=values.get("load_ms"),
        first_ms=values.get("first_ms"),
        warmup_ms=values.get("warmup_ms"),
        peak_rss_bytes=values.get("peak_rss_bytes"),
        energy_j=values.get("energy_j"),
        began_at=values.get("began_at"),
        other_cores=values.get("other_cores"),
        conditions=values.get("conditions"),
    )


def _median_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def read_rows(path: Path) -> list[Row]:
    """Read the rows of an older run from a file of `edge bench --json`. Raises InputError for any other file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}", _OLD_HINT) from None
    if not isinstance(rows, list):
        raise InputError(f"{path} does not contain the rows of a benchmark", _OLD_HINT)
    return [Row.from_json(Fields(row, str(path), f"[{place}]", hint=_OLD_HINT)) for place, row in enumerate(rows)]
