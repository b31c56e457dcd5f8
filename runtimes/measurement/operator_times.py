"""The time that each operator of a model takes, from the engine's own profiler.

A profiler slows the engine down (ONNX Runtime by about 6.5 µs for each operator), so a profile only shows the share of
each operator. The latency of an inference is in `samples_ms`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, Mapping, Sequence, TypedDict

WARM_UP_RUNS = 3
RUNS = 30


class OperatorSummary(TypedDict):
    """The keys of an operator in JSON."""

    name: str
    type: str
    placement: str
    ms: float
    share: float


class ProfileSummary(TypedDict):
    """The keys of a profile in JSON; `outside_ms` and the operators add up to `total_ms`."""

    runs: int
    total_ms: float
    outside_ms: float
    operators: list[OperatorSummary]


@dataclass(frozen=True)
class OperatorTime:
    """An operator as the engine runs it, after fusion.

    name: Its name.
    type: What it computes, in the engine's words.
    placement: Where it runs: a provider, a kernel, a device.
    ms: Its mean time in one inference.
    """

    name: str
    type: str
    placement: str
    ms: float


@dataclass(frozen=True)
class OperatorProfile:
    """The mean of `runs` inferences: `total_ms` of wall time, and the operators in it."""

    runs: int
    total_ms: float
    operators: Sequence[OperatorTime]

    def to_json(self) -> ProfileSummary:
        """Return the JSON form, the slowest operator first."""
        inside = sum(one.ms for one in self.operators)
        ordered = sorted(self.operators, key=lambda one: -one.ms)
        return {
            "runs": self.runs,
            "total_ms": self.total_ms,
            "outside_ms": self.total_ms - inside,
            "operators": [
                {
                    "name": one.name,
                    "type": one.type,
                    "placement": one.placement,
                    "ms": one.ms,
                    "share": one.ms / self.total_ms if self.total_ms else 0.0,
                }
                for one in ordered
            ],
        }


def mean_ms(call: Callable[[], object], runs: int) -> float:
    """Return the mean time of `runs` calls."""
    start = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - start) * 1e3 / runs


def means(times: Mapping[str, tuple[str, str, float]], runs: int) -> list[OperatorTime]:
    """Convert {name: (type, placement, sum of times in ms)} to operators."""
    return [
        OperatorTime(name=name, type=kind, placement=place, ms=total / runs)
        for name, (kind, place, total) in times.items()
    ]
