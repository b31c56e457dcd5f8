"""The two measurement protocols, which decide how many inferences to run, and their timed loop.

published   1 warm-up, a pause of 1 s, then 250 runs on the same input in one loop: the method of the 2019 article
            whose table `edge table` reproduces (Sterckval; see `edge/table` for the rows)
steady      warm up until stable, then run until the median is known to ±1 % (the default)
"""

from __future__ import annotations

import time
from array import array
from dataclasses import asdict, dataclass, fields
from typing import Any, Callable, List, Mapping, Union

import numpy as np

from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import UsageError
from runtimes.jobs import Report
from runtimes.measurement.statistics import fewest_runs, median, median_interval

Call = Callable[[], object]
Times = Callable[[int], Any]  # allocates a zeroed buffer for `count` clock readings
Before = Callable[[List[float]], object]


def in_memory(count: int) -> Any:
    """Allocate a private buffer for clock readings."""
    return array("q", bytes(8 * count))


@dataclass
class Timings:
    """Latencies in ms of the warm-up and of the timed loop, and the loop's wall time in seconds."""

    warmup_ms: list[float]
    samples_ms: list[float]
    total_s: float


@dataclass(frozen=True)
class Published:
    """`runs` inferences in one loop after one warm-up and a pause, which lets all threads go idle."""

    runs: int = 250
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        _at_least("runs", self.runs, 1)
        _at_least("pause_s", self.pause_s, 0)

    def time(self, call: Call, report: Report, before: Before, times: Times = in_memory) -> Timings:
        """Time `call`; `before` is called once with the warm-up timings, right before the timed loop."""
        warmup = timed_loop(call, 1)
        time.sleep(self.pause_s)
        report({"phase": "measuring", "runs": self.runs})
        before(warmup)
        samples = timed_loop(call, self.runs, times)
        return Timings(warmup, samples, sum(samples) / 1e3)


@dataclass(frozen=True)
class Steady:
    """Runs until the median's 95 % confidence interval is within ±`within`, for at most `max_s`.

    The warm-up runs in windows of at least `WINDOW_RUNS` runs and `WINDOW_S`. It ends when the medians of three
    consecutive windows are within ±2 % of the middle one, or after a third of `max_s`. Clock ramp-up, caches and lazy
    compilation appear as a trend over windows; a single window cannot distinguish a trend from noise.

    The timed part grows by half before each check of the interval, so that checks are rare and outside the timed
    loops. There are at least `min_runs` runs, which p95 needs, over at least `MIN_S`; `max_runs` bounds the memory.
    """

    max_s: float = 30.0
    within: float = 0.01
    min_runs: int = fewest_runs(0.95)
    max_runs: int = 100_000

    WINDOW_RUNS = 5
    WINDOW_S = 0.1
    STABLE = 0.02
    MIN_S = 1.0  # long enough to average over the operating system's periodic work

    def __post_init__(self) -> None:
        _at_least("max_s", self.max_s, 0.1)
        _at_least("within", self.within, 1e-4)
        _at_least("min_runs", self.min_runs, 6)
        _at_least("max_runs", self.max_runs, self.min_runs)

    def time(self, call: Call, report: Report, before: Before, times: Times = in_memory) -> Timings:
        """Time `call`; `before` is called once with the warm-up timings, right before the first timed run."""
        start = time.perf_counter()
        report({"phase": "warming up"})
        warmup = self._warm_up(call, start + self.max_s / 3)
        before(warmup)
        samples: list[float] = []
        left = max(0.0, start + self.max_s - time.perf_counter())
        batch = self._batch(min(self.MIN_S / 2, left), warmup[-self.WINDOW_RUNS :])
        while True:
            samples += timed_loop(call, batch, times)
            report({"phase": "measuring", "runs": len(samples)})
            left = start + self.max_s - time.perf_counter()
            if left <= 0 or len(samples) >= self.max_runs or self._is_enough(samples):
                return Timings(warmup, samples, sum(samples) / 1e3)
            batch = min(self._batch(left, samples), max(6, len(samples) // 2), self.max_runs - len(samples))

    def _warm_up(self, call: Call, deadline: float) -> list[float]:
        samples = timed_loop(call, 1)
        medians: list[float] = []
        while time.perf_counter() < deadline and not self._is_stable(medians):
            window = self._window(call)
            medians.append(median(window))
            samples += window
        return samples

    def _window(self, call: Call) -> list[float]:
        samples: list[float] = []
        end = time.perf_counter() + self.WINDOW_S
        while len(samples) < self.WINDOW_RUNS or time.perf_counter() < end:
            samples += timed_loop(call, 1)
        return samples

    def _is_stable(self, medians: list[float]) -> bool:
        last = sorted(medians[-3:])
        return len(last) == 3 and last[2] - last[1] <= self.STABLE * last[1] >= last[1] - last[0]

    def _is_enough(self, samples: list[float]) -> bool:
        if len(samples) < self.min_runs or sum(samples) < self.MIN_S * 1e3:
            return False
        interval = median_interval(samples)
        return interval is not None and interval.within(self.within)

    def _batch(self, seconds: float, samples: list[float]) -> int:
        """Estimate how many runs fit into `seconds` from the samples so far; at least 1."""
        return max(1, min(self.max_runs, int(seconds * 1e3 / max(median(samples), 1e-6))))


Protocol = Union[Published, Steady]
_PROTOCOLS: dict[str, type[Protocol]] = {"published": Published, "steady": Steady}


def protocol_from_dict(wanted: Mapping[str, JsonValue]) -> Protocol:
    """Build the protocol of a job, {"name": "steady", "max_s": 10, …}. Raises UsageError for unknown keys."""
    values: Any = dict(wanted)
    name = values.pop("name", "steady")
    if name not in _PROTOCOLS:
        raise UsageError(f"there is no protocol '{name}'", f"protocols: {', '.join(_PROTOCOLS)}")
    kind = _PROTOCOLS[name]
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"the protocol '{name}' has no '{unknown[0]}'", f"it has: {', '.join(known)}")
    return kind(**values)


def as_dict(protocol: Protocol) -> JsonObject:
    """Convert a protocol to the form that `protocol_from_dict` reads."""
    return {"name": next(name for name, kind in _PROTOCOLS.items() if isinstance(protocol, kind)), **asdict(protocol)}


def timed_loop(call: Call, count: int, room: Times = in_memory) -> list[float]:
    """Time `count` calls in one loop; returns latencies in ms. Each clock reading is stored in `room` immediately.

    The clock is read once per run, so the samples add up to the loop's wall time. It is read after the result is
    available, which includes work that asynchronous engines defer. The loop's overhead is one clock reading and one
    store, some 0.1 µs.
    """
    clock = time.perf_counter_ns
    times = room(count + 1)  # allocated in advance: no page faults and no new objects in the loop
    times[0] = clock()
    for index in range(1, count + 1):
        call()
        times[index] = clock()
    return [float(sample) for sample in np.diff(np.frombuffer(times, np.int64)) / 1e6]


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise UsageError(f"{name} is {value}", f"choose {least:g} or more")
