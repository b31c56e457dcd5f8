"""From raw measurements to one row for each setup: the statistics are computed here, on reading.

A row is what `edge bench --json` writes, and what `--compare` reads:

    host                             the board that it was measured on; null is the machine that wrote this
    setup, title, status             status is "ok" when every round succeeded; else what went wrong first
    error, message, hint             then only; what had been measured until then is in the row all the same
    runtime, runtime_version, format, artifact, precision, threads, device, settings, protocol, machine, input, output
    samples_ms                       of all rounds, in order
    median_ms, low_ms, high_ms       the median and its 95 % interval; an end is null where the runs do not support it
    mean_ms, p90_ms, p95_ms, spread  a percentile is null where the runs do not support it; spread is IQR / median
    total_s                          wall time of the timed loop, median of the rounds
    load_ms, import_ms, first_ms     medians of the rounds
    peak_rss_bytes                   the highest of all rounds
    energy_per_run_j                 median of the rounds, by energy_source; or null with energy_note
    top, raw                         as in a measurement
    rounds                           for each round: round, runs, median_ms, total_s, conditions, warmup_ms, …
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bench.harness import Measurement
from runtimes.errors import InputError
from runtimes.stats import median, median_interval, percentile, spread

Row = dict[str, Any]

# What all rounds of a setup share.
_SHARED = (
    "runtime",
    "runtime_version",
    "format",
    "artifact",
    "precision",
    "threads",
    "device",
    "settings",
    "protocol",
    "machine",
    "input",
    "output",
    "energy_source",
    "energy_note",
    "top",
    "raw",
)
_STATISTICS = ("median_ms", "low_ms", "high_ms", "mean_ms", "p90_ms", "p95_ms", "spread")
_MEDIANS = ("total_s", "import_ms", "load_ms", "first_ms")
_OVER_ROUNDS = (*_MEDIANS, "peak_rss_bytes", "energy_per_run_j")
_PER_ROUND = (
    "total_s",
    "import_ms",
    "load_ms",
    "first_ms",
    "warmup_ms",
    "peak_rss_bytes",
    "energy_j",
    "began_at",
    "other_cores",
    "conditions",
)


def rows_of(measurements: Iterable[Measurement]) -> list[Row]:
    """One row for each setup, in the order in which the setups first appear."""
    by_setup: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_setup.setdefault(measurement.setup.id, []).append(measurement)
    return [_row(group) for group in by_setup.values()]


def _row(group: Sequence[Measurement]) -> Row:
    done = [measurement for measurement in group if measurement.values.get("samples_ms")]
    failed = next((measurement.values for measurement in group if not measurement.is_ok), None)
    setup = group[0].setup
    row: Row = {"setup": setup.id, "title": setup.title, "host": setup.host, **(failed or {"status": "ok"})}
    if not done:
        wanted = {"runtime": setup.runtime, "threads": setup.options.get("threads"), "artifact": str(setup.artifact)}
        return {**unmeasured(), **row, **wanted}
    samples = [sample for measurement in done for sample in measurement.values["samples_ms"]]
    shared = {key: done[0].values.get(key) for key in _SHARED}
    lit = next((one.values for one in done if one.values.get("energy_j") is not None), done[0].values)
    shared |= {key: lit.get(key) for key in ("energy_source", "energy_note")}
    rounds = [_round(measurement) for measurement in done]
    return {**row, **shared, "samples_ms": samples, **statistics(samples), **_over_rounds(rounds), "rounds": rounds}


def unmeasured() -> Row:
    """The keys that machines read of every row, where nothing was measured: null, or an empty list."""
    return {**dict.fromkeys((*_SHARED, *_STATISTICS, *_OVER_ROUNDS)), "samples_ms": [], "top": [], "rounds": []}


def statistics(samples: Sequence[float]) -> Row:
    """What is said of samples in ms; every key of it is described above."""
    interval = median_interval(samples)
    return {
        "median_ms": median(samples),
        "low_ms": interval and interval.low,
        "high_ms": interval and interval.high,
        "mean_ms": sum(samples) / len(samples),
        "p90_ms": percentile(samples, 0.90),
        "p95_ms": percentile(samples, 0.95),
        "spread": spread(samples),
    }


def round_samples(row: Mapping[str, Any]) -> list[list[float]]:
    """The samples of a row, for each round."""
    samples, start, parts = row["samples_ms"], 0, []
    for part in row["rounds"]:
        parts.append(samples[start : start + part["runs"]])
        start += part["runs"]
    return parts


def _round(measurement: Measurement) -> Row:
    values = measurement.values
    samples = values["samples_ms"]
    told = {key: values.get(key) for key in _PER_ROUND}
    return {"round": measurement.round, "runs": len(samples), "median_ms": median(samples), **told}


def _over_rounds(rounds: Sequence[Row]) -> Row:
    joules = [part["energy_j"] / part["runs"] for part in rounds if part["energy_j"] is not None]
    return {
        "energy_per_run_j": median(joules) if joules else None,
        "peak_rss_bytes": max((part["peak_rss_bytes"] or 0 for part in rounds), default=0) or None,
        **{key: _median_of_known(part[key] for part in rounds) for key in _MEDIANS},
    }


def _median_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def read_rows(path: Path) -> list[Row]:
    """The rows of an older run, as `edge bench --json` wrote them; InputError when the file is something else."""
    hint = "write it with `edge bench … --json --out FILE`"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}", hint) from None
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise InputError(f"{path} does not hold the rows of a benchmark", hint)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("setup"), str):
        return False
    samples, rounds = row.get("samples_ms"), row.get("rounds", [])
    if not isinstance(samples, list) or not all(isinstance(sample, (int, float)) for sample in samples):
        return False
    if not isinstance(rounds, list) or not all(isinstance(r, dict) and isinstance(r.get("runs"), int) for r in rounds):
        return False
    return len(samples) == sum(int(part["runs"]) for part in rounds)
