"""Find what makes a measurement less reliable than it looks, with a remedy for each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from edge.benchmark.rows import Row
from edge.machine import FASTEST_GOVERNOR, FASTEST_GOVERNOR_JETSON, FIXED_GPU_CLOCK, FULL_POWER_MODE
from runtimes.host.schema import Conditions, Throttling

# IQR / median; the threshold of torch.utils.benchmark.
SPREAD = 0.10
# On a quiet machine, the medians of the rounds differ by less than this.
ROUNDS_APART = 0.05
# The first inference relative to the median: it compiles, allocates and pages in.
SLOW_FIRST = 2.0
# The mean relative to the median: the tables of hyperfine and ncnn show how much a few outliers shift it.
MEAN_OFF = 1.10
HOT_C = 80.0  # where Raspberry Pis and most laptops begin to slow down
THREADS_SLOWER = 1.02
OTHER_CORES = 0.2  # more than the system's own short background tasks use
_LOAD_SLACK = 0.5  # processes, for the same reason
_STOP = "stop them (`top` shows them) and measure again"


# A first inference faster than this is not noticed, however many times the median it takes.
_NOTICED_MS = 1.0

Warnings = Iterator[tuple[str, str]]


class Finding(NamedTuple):
    """A reason to doubt results, and what to do about it.

    setup: The setup concerned; None if the finding concerns the machine and therefore all rows.
    what: The finding.
    remedy: What to do.
    """

    setup: str | None
    what: str
    remedy: str


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Return the findings about the measured rows, in their order, then those about the machines."""
    measured = [row for row in rows if row.samples_ms]
    if not measured:
        return []
    of_rows = [Finding(row.setup, *warning) for row in measured for check in _OF_ROWS for warning in check(row)]
    machines = [one for host in dict.fromkeys(map(_host, measured)) for one in _of_host(host, measured)]
    return of_rows + list(_more_threads_slower(measured)) + list(_unequal_threads(measured)) + machines


def machine_findings(measured: Sequence[Row]) -> list[Finding]:
    """Return the findings about the machine that measured the rows."""
    return [Finding(None, *warning) for check in _OF_MACHINE for warning in check(measured)] if measured else []


def _host(row: Row) -> str | None:
    host: str | None = row.host
    return host


def _of_host(host: str | None, measured: Sequence[Row]) -> list[Finding]:
    """Return the findings about one of several machines; those about a board start with its name."""
    found = machine_findings([row for row in measured if _host(row) == host])
    return found if host is None else [one._replace(what=f"{host}: {one.what}") for one in found]


def other_cores(row: Row) -> float:
    """Return how many cores other processes kept busy in the row's worst round; 0 if unknown."""
    return max((part.other_cores or 0.0 for part in row.rounds), default=0.0)


def _spread(row: Row) -> Warnings:
    if row.spread is not None and row.spread > SPREAD:
        yield (
            f"the interquartile range of the runs is {row.spread:.0%} of the median",
            "close other programs, or use more --rounds",
        )


def _rounds_differ(row: Row) -> Warnings:
    medians = [part.median_ms for part in row.rounds if part.median_ms is not None]
    apart = max(medians) / min(medians) - 1 if min(medians, default=0.0) > 0 else 0.0
    if apart > ROUNDS_APART:
        yield (
            f"the medians of the rounds differ by {apart:.0%}",
            "the machine's state changed in between: use more --rounds",
        )


def _first_run(row: Row) -> Warnings:
    if row.first_ms is None:
        return
    times = row.first_ms / row.median_ms if row.median_ms else 0.0
    if times > SLOW_FIRST and row.first_ms > _NOTICED_MS:
        yield (
            f"the first inference took {row.first_ms:.3g} ms, {times:.1f} times the median",
            "run one inference at start-up, before users wait for results",
        )


def _outliers(row: Row) -> Warnings:
    if row.mean_ms is not None and row.median_ms is not None and row.mean_ms > MEAN_OFF * row.median_ms:
        yield "a few slow runs raise the mean well above the median", "use the median, and p95 if it is reported"


def _fallbacks(row: Row) -> Warnings:
    for sentence in (row.browser or {}).get("fallbacks", ()):
        yield sentence.rstrip("."), f"measured on {row.device} with {row.threads} threads instead"


def _uncertain(row: Row) -> Warnings:
    within = (row.protocol or {}).get("within")
    if not isinstance(within, float) or row.low_ms is None or row.high_ms is None or not row.median_ms:
        return
    off = max(row.high_ms - row.median_ms, row.median_ms - row.low_ms) / row.median_ms
    if off > within:
        yield (
            f"the median is known only to ±{off:.1%}, not ±{within:.0%}",
            "use a quieter machine, or measure longer with --seconds",
        )


def _neighbors(row: Row) -> Warnings:
    if other_cores(row) > OTHER_CORES:
        yield f"other processes kept {other_cores(row):.1f} cores busy during the measurement", _STOP


def _governor(rows: Sequence[Row]) -> Warnings:
    named = (after["governor"] for _, after in _conditions(rows))
    governors = {governor for governor in named if governor not in (None, "performance")}
    if governors:
        words = " and ".join(sorted(filter(None, governors)))
        is_jetson = any(after.get("power_mode") for _, after in _conditions(rows))
        yield f"the CPU frequency governor is {words}", FASTEST_GOVERNOR_JETSON if is_jetson else FASTEST_GOVERNOR


def _power_mode(rows: Sequence[Row]) -> Warnings:
    modes = [mode for _, after in _conditions(rows) if (mode := after.get("power_mode")) is not None]
    slow = {
        mode["name"] or f"number {mode['id']}"
        for mode in modes
        if mode["id"] != 0 and not str(mode["name"]).startswith("MAXN")
    }
    if slow:
        yield f"the power mode is {' and '.join(sorted(slow))}, in which cores and clocks are limited", FULL_POWER_MODE


def _gpu_clock(rows: Sequence[Row]) -> Warnings:
    clocks = [clock for _, after in _conditions(rows) if (clock := after.get("gpu_clock")) is not None]
    free = next((clock for clock in clocks if not clock["fixed"]), None)
    if free:
        what = f"the GPU's clock moves between {free['min_mhz']:.0f} and {free['max_mhz']:.0f} MHz"
        yield what, FIXED_GPU_CLOCK


_NEVER: Throttling = {"source": "", "now": [], "since_boot": [], "events": None}


def _warn_of_throttling(rows: Sequence[Row]) -> Warnings:
    flags, events = set(), 0
    for before, after in _conditions(rows):
        then, now = before["throttling"] or _NEVER, after["throttling"] or _NEVER
        flags |= set(now["now"])
        if before["throttling"]:  # throttling that ended before the loop did is recorded since boot
            flags |= set(now["since_boot"]) - set(then["since_boot"])
        events += (now["events"] or 0) - (then["events"] or 0)
    if flags:
        yield f"the board throttled: {', '.join(sorted(flags))}", "use a stronger power supply, or a fan"
    if events > 0:
        yield f"the CPU throttled {events} times during the measurement", "let it cool down, or add a fan"


def _hot(rows: Sequence[Row]) -> Warnings:
    hottest = max((after["temperature_c"] or 0.0 for _, after in _conditions(rows)), default=0.0)
    if hottest >= HOT_C:
        yield f"its temperature reached {hottest:.0f} °C", "let it cool down between runs, or add a fan"


def _load(rows: Sequence[Row]) -> Warnings:
    """Check the load average for the rows in which the CPU time of other processes is not known."""
    unknown = [row for row in rows if all(part.other_cores is None for part in row.rounds)]
    known = [load for before, _ in _conditions(unknown) if (load := before["load_average"]) is not None]
    if not known:
        if unknown:
            yield "it is not known how busy other programs were", "close them, and compare several --rounds"
        return
    # The load average is a mean over a minute, so it includes the threads of setups measured just before.
    own, load = max(_threads(row) for row in rows), max(known)
    if load > own + _LOAD_SLACK:
        yield f"other processes used the CPU: the load average is {load:.1f}, of which at most {own} is ours", _STOP


_OF_ROWS: tuple[Callable[[Row], Warnings], ...] = (
    _spread,
    _rounds_differ,
    _first_run,
    _fallbacks,
    _outliers,
    _uncertain,
    _neighbors,
)


def _warn_of_emulation(rows: Sequence[Row]) -> Warnings:
    if any((row.machine or {}).get("emulated") for row in rows):
        yield "this processor is emulated: outputs are valid, times are not", "measure on real hardware"


_OF_MACHINE: tuple[Callable[[Sequence[Row]], Warnings], ...] = (
    _warn_of_emulation,
    _load,
    _governor,
    _power_mode,
    _gpu_clock,
    _warn_of_throttling,
    _hot,
)


def _conditions(rows: Sequence[Row]) -> list[tuple[Conditions, Conditions]]:
    """Return the conditions before and after each measurement."""
    around = [part.conditions for row in rows for part in row.rounds]
    return [(one["before"], one["after"]) for one in around if one is not None]


def _more_threads_slower(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        for other in rows:
            fewer = _is_like(row, other) and _threads(other) < _threads(row)
            if fewer and (row.median_ms or 0.0) > THREADS_SLOWER * (other.median_ms or 0.0):
                what = f"{_threads(row)} threads are slower than {_threads(other)}"
                yield Finding(row.setup, what, f"--threads {_threads(other)}")
                break


def _unequal_threads(measured: Sequence[Row]) -> Iterator[Finding]:
    """Check that engines are compared with equal threads, unless each of them was measured with several numbers."""
    for host in dict.fromkeys(map(_host, measured)):
        by_engine: dict[str, set[int | None]] = {}
        for row in measured:
            if _host(row) == host and row.runtime and row.device in (None, "cpu"):
                by_engine.setdefault(row.runtime, set()).add(row.threads)
        if len({frozenset(counts) for counts in by_engine.values()}) > 1:
            words = [
                f"{engine} {', '.join(sorted('its own choice' if one is None else str(one) for one in counts))}"
                for engine, counts in by_engine.items()
            ]
            what = f"the engines used unequal numbers of threads: {'; '.join(words)}"
            yield Finding(None, what if host is None else f"{host}: {what}", "choose one for all: --threads N")


def _is_like(row: Row, other: Row) -> bool:
    keys = ("artifact", "runtime", "device", "settings")
    return (
        row.threads is not None
        and other.threads is not None
        and all(getattr(row, k) == getattr(other, k) for k in keys)
    )


def _threads(row: Row) -> int:
    return row.threads or (row.machine or {}).get("logical_cores") or 1
