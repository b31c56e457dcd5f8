"""The lines of a report: what was published, measured or estimated, with what made each number and how to repeat it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from device_profiles.published import PublishedRow
from edge.benchmark.rows import Row
from edge.benchmark.tables import explain_failure
from edge.estimation.results import Estimate
from edge.table.setups import THIS_MACHINE
from runtimes.measurement.operator_times import ProfileSummary

PUBLISHED, MEASURED, ESTIMATED, MISSING = "published", "measured", "estimated", "not measured"
KINDS = (PUBLISHED, MEASURED, ESTIMATED, MISSING)
_HERE = f"{THIS_MACHINE}, "
Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class MeasuredAccuracy:
    """A metric of a model, 0 to 1, on `count` inputs of `data`."""

    metric: str
    value: float
    count: int
    data: str


@dataclass(frozen=True, kw_only=True)
class ReportedResult:
    """A line of the report.

    kind: One of KINDS.
    setup: Its name.
    group: The same setup has the same group on each machine.
    machine: Where it ran; empty if that is part of the name.
    engine: With its version.
    latency_ms: A measured row's median; for a published row its loop / the number of inferences in it.
    low_ms, high_ms: The 95 % interval of a measured median, or the 90 % band of an estimate.
    joules: The energy of an inference.
    facts: What made the numbers, as pairs of a name and a value.
    doubts: Reasons to doubt them, with remedies.
    command: What repeats it.
    reason: Why there are no numbers.
    """

    kind: str
    setup: str
    group: str = ""
    machine: str = ""
    engine: str = ""
    threads: int | None = None
    precision: str = ""
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    fps: float | None = None
    joules: float | None = None
    accuracy: MeasuredAccuracy | None = None
    samples_ms: Sequence[float] = ()
    profile: ProfileSummary | None = None
    facts: Facts = ()
    doubts: Sequence[str] = ()
    command: str = ""
    reason: str = ""


def result_of_published(row: PublishedRow) -> ReportedResult:
    """Return a row of the published table. Its energy and accuracy were not published."""
    return ReportedResult(
        kind=PUBLISHED,
        setup=row.setup,
        group=row.id,
        engine=row.runtime,
        precision=row.precision,
        latency_ms=1000 * row.time_s / row.runs,
        fps=row.runs / row.time_s,
        facts=(
            ("published", f"{row.year}, {row.source}"),
            ("time", f"{row.time_s} s for {row.runs} classifications of one picture, after one to warm up"),
            ("answer", f"{row.top1}, {row.score} ({row.score_kind})"),
        ),
        command=f"edge table --how {row.id}",
    )


def result_of_row(
    row: Row,
    *,
    command: str = "",
    accuracy: MeasuredAccuracy | None = None,
    doubts: Sequence[str] = (),
    speeds: Mapping[str, float] = MappingProxyType({}),
) -> ReportedResult:
    """Return a measured row, or the reason why it was not measured.

    command: What repeats it; the default is made from the row.
    speeds: The tests of a language model, in tokens a second; its latency is that of a token.
    """
    machine = machine_of(row) if row.machine else ""
    return ReportedResult(
        kind=MEASURED if row.samples_ms else MISSING,
        setup=f"{(row.title or row.setup).removeprefix(_HERE)}{', each token' if speeds else ''}",
        group=_without_host(row),
        machine=": ".join(filter(None, (row.host, machine))),
        engine=" ".join(filter(None, (row.runtime, row.runtime_version))),
        threads=row.threads,
        precision=row.precision or "",
        latency_ms=row.median_ms,
        low_ms=row.low_ms,
        high_ms=row.high_ms,
        fps=row.fps,
        joules=row.energy_per_run_j,
        accuracy=accuracy,
        samples_ms=row.samples_ms,
        profile=row.profile,
        facts=(*_facts(row), *((test, f"{speed:.4g} tokens/s") for test, speed in speeds.items())),
        doubts=doubts,
        command=command or bench_command(row, speeds),
        reason="" if row.is_ok else explain_failure(row).removeprefix(f"{row.title}: "),
    )


def result_of_estimate(model: str, one: Estimate) -> ReportedResult:
    """Return an estimate for a device, which need not be present."""
    band = "no band: " + ("the model is unlike all published ones" if one.low_ms is None else "")
    if one.low_ms is not None and one.error is not None:
        band = f"90 % band; the median error of a {one.basis} is {one.error:.0%}"
    return ReportedResult(
        kind=ESTIMATED,
        setup=f"{model} on {one.device}",
        group=f"{model}, {one.engine}, {one.precision}",
        machine=one.device,
        engine=" ".join(filter(None, (one.engine, one.engine_version))),
        precision=one.precision,
        latency_ms=one.latency_ms,
        low_ms=one.low_ms,
        high_ms=one.high_ms,
        fps=one.fps,
        joules=None if one.energy_mj is None else one.energy_mj / 1000,
        facts=(
            ("estimated", f"from {one.models} published models on its {one.processor}; not measured"),
            ("band", band),
            ("published by", one.source),
        ),
        command=f"edge estimate {shlex.quote(model)} --for {one.device} --precision {one.precision}",
    )


def machine_of(row: Row) -> str:
    """Return the name of the machine that a row was measured on."""
    machine = row.machine or {}
    name = machine.get("board") or machine.get("cpu") or "unknown machine"
    return f"{name} (emulated)" if machine.get("emulated") else name


def bench_command(row: Row, tests: Iterable[str] = ()) -> str:
    """Return the command that measures a row again: the options that differ from the defaults.

    tests: Those of a language model: "pp512" is a prompt of 512 tokens, "tg128" generates 128.
    """
    words = ["edge", "bench", row.artifact or row.title or row.setup]
    protocol = row.protocol or {}
    for test in tests:
        words += ["--prompt-tokens" if test.startswith("pp") else "--gen-tokens", test[2:]]
    if protocol.get("name") == "published":
        words += ["--protocol", "published", "--runs", str(protocol.get("runs", 250))]
    elif protocol.get("max_s") is not None:
        words += ["--seconds", f"{protocol['max_s']:g}"]
    if row.runtime and row.browser is None:
        words += ["--runtime", row.runtime]
    if row.threads is not None:
        words += ["--threads", str(row.threads)]
    if row.device not in (None, "cpu"):
        words += ["--device", str(row.device)]
    for name, value in (row.settings or {}).items():
        words += ["--set", f"{name}={value}"]
    if row.batch is not None:
        words += ["--batch", str(row.batch)]
    if row.throughput is not None:
        words += ["--throughput", str(row.throughput["streams"])]
    if row.profile is not None:
        words.append("--profile")
    if row.input is not None and row.input["kind"] in ("picture", "arrays"):
        words += ["--input", "FILE"]
    words += ["--rounds", str(len(row.rounds) or 1)]
    if row.host is not None or row.browser is not None:
        words += ["--on", row.host or "browser"]
    return shlex.join(words)


def _without_host(row: Row) -> str:
    name = row.title or row.setup
    return name.removeprefix(f"{row.host}, ").removeprefix(_HERE)


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield what made a row's numbers; what is not known is left out."""
    machine = row.machine or {}
    if row.artifact:
        yield "model", row.artifact
    if row.model_sha256:
        yield "sha256", row.model_sha256
    if row.runtime:
        yield "engine", f"{row.runtime} {row.runtime_version or ''}".strip()
    if row.settings:
        yield "settings", ", ".join(f"{key}={value}" for key, value in row.settings.items())
    if row.device:
        yield "device", row.device
    if machine:
        yield "machine", ", ".join(filter(None, (machine_of(row), _cores(row), machine.get("os"))))
    if row.browser is not None:
        yield "browser", row.browser.get("name", "")
    if row.protocol:
        yield "protocol", ", ".join(f"{key} {value}" for key, value in row.protocol.items() if value is not None)
    if row.input is not None:
        yield "input", " ".join(filter(None, (row.input["kind"], (row.input["sha256"] or "")[:12])))
    if row.samples_ms:
        yield "runs", f"{len(row.samples_ms):,} in {len(row.rounds) or 1} processes"
    yield from _conditions(row)
    if row.energy_source:
        yield "energy", row.energy_source
    if row.edge_version:
        yield "edge", row.edge_version


def _cores(row: Row) -> str:
    cores = (row.machine or {}).get("logical_cores")
    return f"{cores} cores" if cores else ""


def _conditions(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the date of the first round, and the machine's state before it."""
    if not row.rounds:
        return
    first = row.rounds[0]
    if first.began_at is not None:
        yield "date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(first.began_at))
    if first.conditions is None:
        return
    before = first.conditions["before"]
    mode = before.get("power_mode")
    state = (
        before.get("governor") and f"governor {before['governor']}",
        before.get("mhz") and f"{before['mhz']:.0f} MHz",
        before.get("temperature_c") and f"{before['temperature_c']:.0f} °C",
        mode and f"power mode {mode['name'] or mode['id']}",
        first.other_cores and f"other processes: {first.other_cores:.1f} cores",
    )
    if any(state):
        yield "state", ", ".join(word for word in state if word)
