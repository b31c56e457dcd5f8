"""What makes a measurement less certain than it looks, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from edge.bench.rows import Row

# IQR / median, where torch.utils.benchmark warns too.
SPREAD = 0.10
# Rounds of a quiet machine lie closer together than this.
ROUNDS_APART = 0.05
# The first inference against the median: it compiles, allocates and pages in.
SLOW_FIRST = 2.0
# The mean against the median: hyperfine's and ncnn's tables show what a few outliers do to it.
MEAN_OFF = 1.10
HOT_C = 80.0  # where Raspberry Pis and most laptops begin to slow down
THREADS_SLOWER = 1.02
OTHER_CORES = 0.2  # more than the system's own short visits
_LOAD_SLACK = 0.5  # of a process, for the same reason
_STOP = "stop them (`top` shows them) and measure again"


# Below this nobody waits for the first inference, however many times the median it is.
_NOTICED_MS = 1.0

Doubts = Iterator[tuple[str, str]]


class Finding(NamedTuple):
    """One doubt, and what to do about it; `setup` is None where it is about the machine, hence about all rows."""

    setup: str | None
    what: str
    remedy: str


def findings(rows: Sequence[Row]) -> list[Finding]:
    """All doubts about the measured rows in their order, then those about the machine."""
    measured = [row for row in rows if row["samples_ms"]]
    if not measured:
        return []
    of_rows = [Finding(row["setup"], *doubt) for row in measured for check in _OF_ROWS for doubt in check(row)]
    machines = [one for host in dict.fromkeys(map(_host, measured)) for one in _of_host(host, measured)]
    return of_rows + list(_more_threads_slower(measured)) + machines


def machine_findings(measured: Sequence[Row]) -> list[Finding]:
    """The doubts about the machine alone, of rows that hold a measurement."""
    return [Finding(None, *doubt) for check in _OF_MACHINE for doubt in check(measured)] if measured else []


def _host(row: Row) -> str | None:
    host: str | None = row.get("host")
    return host


def _of_host(host: str | None, measured: Sequence[Row]) -> list[Finding]:
    """The doubts about one of several machines; a board is named in them."""
    found = machine_findings([row for row in measured if _host(row) == host])
    return found if host is None else [one._replace(what=f"{host}: {one.what}") for one in found]


def other_cores(row: Row) -> float:
    """How many cores other processes kept busy in the row's worst round; 0 where that cannot be told."""
    return max((part.get("other_cores") or 0.0 for part in row["rounds"]), default=0.0)


def _spread(row: Row) -> Doubts:
    if row["spread"] > SPREAD:
        yield f"the middle half of the runs is spread over {row['spread']:.0%}", "close other programs; more --rounds"


def _rounds_differ(row: Row) -> Doubts:
    medians = [part["median_ms"] for part in row["rounds"]]
    apart = max(medians) / min(medians) - 1 if min(medians) > 0 else 0.0
    if apart > ROUNDS_APART:
        yield f"the medians of the rounds lie {apart:.0%} apart", "the machine changed in between: more --rounds"


def _first_run(row: Row) -> Doubts:
    if row["first_ms"] is None:
        return
    times = row["first_ms"] / row["median_ms"] if row["median_ms"] else 0.0
    if times > SLOW_FIRST and row["first_ms"] > _NOTICED_MS:
        yield (
            f"the first inference took {row['first_ms']:.3g} ms, {times:.1f} times the median",
            "run one inference at start-up, before anybody waits for an answer",
        )


def _outliers(row: Row) -> Doubts:
    if row["mean_ms"] > MEAN_OFF * row["median_ms"]:
        yield "a few slow runs pull the mean away from the median", "go by the median, and by p95 where it is given"


def _uncertain(row: Row) -> Doubts:
    within = row["protocol"].get("within")
    if within is None or row["low_ms"] is None:
        return
    off = max(row["high_ms"] - row["median_ms"], row["median_ms"] - row["low_ms"]) / row["median_ms"]
    if off > within:
        yield f"the median is known to ±{off:.1%} only, not ±{within:.0%}", "a quieter machine, or longer: --seconds"


def _neighbours(row: Row) -> Doubts:
    if other_cores(row) > OTHER_CORES:
        yield f"other processes kept {other_cores(row):.1f} cores busy meanwhile", _STOP


def _governor(rows: Sequence[Row]) -> Doubts:
    governors = {after["governor"] for _, after in _conditions(rows)} - {None, "performance"}
    if governors:
        words = " and ".join(sorted(governors))
        yield f"the CPU's governor is {words}", "sudo cpupower frequency-set --governor performance"


def _throttled(rows: Sequence[Row]) -> Doubts:
    flags, events = set(), 0
    for before, after in _conditions(rows):
        then, now = before["throttling"] or {}, after["throttling"] or {}
        flags |= set(now.get("now") or [])
        if then:  # what was over when the loop ended has left its mark
            flags |= set(now.get("since_boot") or []) - set(then.get("since_boot") or [])
        events += (now.get("events") or 0) - (then.get("events") or 0)
    if flags:
        yield f"the board slowed itself down: {', '.join(sorted(flags))}", "a stronger power supply, or a fan"
    if events > 0:
        yield f"the CPU throttled {events} times while it was measured", "let it cool down, or give it a fan"


def _hot(rows: Sequence[Row]) -> Doubts:
    hottest = max(after["temperature_c"] or 0.0 for _, after in _conditions(rows))
    if hottest >= HOT_C:
        yield f"it was {hottest:.0f} °C hot", "let it cool down between runs, or give it a fan"


def _load(rows: Sequence[Row]) -> Doubts:
    """For where the cores of other processes cannot be told."""
    if any(part.get("other_cores") is not None for row in rows for part in row["rounds"]):
        return
    # The load average is a mean over a minute, so the threads of setups measured just before are in it.
    own = max(_threads(row) for row in rows)
    load = max(before["load_average"] or 0.0 for before, _ in _conditions(rows))
    if load > own + _LOAD_SLACK:
        yield f"other processes used the CPU: load average {load:.1f}, of which at most {own} ours", _STOP


_OF_ROWS: tuple[Callable[[Row], Doubts], ...] = (
    _spread,
    _rounds_differ,
    _first_run,
    _outliers,
    _uncertain,
    _neighbours,
)


def _emulated(rows: Sequence[Row]) -> Doubts:
    if any((row["machine"] or {}).get("emulated") for row in rows):
        yield "this processor is emulated: its answers count, its times say nothing", "measure on the hardware"


_OF_MACHINE: tuple[Callable[[Sequence[Row]], Doubts], ...] = (_emulated, _load, _governor, _throttled, _hot)


def _conditions(rows: Sequence[Row]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the machine was like before and after each measurement."""
    parts = [part["conditions"] for row in rows for part in row["rounds"]]
    return [(part["before"], part["after"]) for part in parts]


def _more_threads_slower(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        for other in rows:
            fewer = _is_like(row, other) and _threads(other) < _threads(row)
            if fewer and row["median_ms"] > THREADS_SLOWER * other["median_ms"]:
                what = f"{_threads(row)} threads are slower than {_threads(other)}"
                yield Finding(row["setup"], what, f"--threads {_threads(other)}")
                break


def _is_like(row: Row, other: Row) -> bool:
    keys = ("artifact", "runtime", "device", "settings")
    return row["threads"] is not None and other["threads"] is not None and all(row[k] == other[k] for k in keys)


def _threads(row: Row) -> int:
    return row["threads"] or (row["machine"] or {}).get("logical_cores") or 1
