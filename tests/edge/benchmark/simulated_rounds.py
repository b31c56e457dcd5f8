"""Simulated rounds of two setups on calm, noisy, disturbed, drifting or busy machines. Seeded, without a clock.

The spreads are those of shared two-core machines: the logarithms of round medians of small models have a standard
deviation of 0.5 to 3 %, or 30 % while other programs use the processor, when those of the fastest runs still have 2 %.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.benchmark import Measurement, Setup
from edge.benchmark.compare import LOOKS, Comparison, compare, compare_in_turn, confidence_at, is_decided
from edge.benchmark.rows import rows_of

MOST = LOOKS[-1][0]
_RUNS = 25
Random = np.random.Generator
# Two arrays of logarithms, one value for each round, measured as A B, B A, A B, ...
Rounds = tuple[np.ndarray, np.ndarray]


def _interleaved(values: np.ndarray) -> Rounds:
    pairs = values.reshape(-1, 2)
    pairs[1::2] = pairs[1::2, ::-1]
    return pairs[:, 0], pairs[:, 1]


def _noise(sd: float) -> Callable[[Random], Rounds]:
    return lambda random: _interleaved(random.normal(0, sd, 2 * MOST))


def _outliers(random: Random) -> Rounds:
    values = random.normal(0, 0.01, 2 * MOST)
    return _interleaved(values + (random.random(2 * MOST) < 0.1) * random.uniform(0.05, 0.7, 2 * MOST))


def _dependent(random: Random) -> Rounds:
    values = random.normal(0, 0.015, 2 * MOST)
    for place in range(1, len(values)):
        values[place] = 0.6 * values[place - 1] + 0.8 * values[place]
    return _interleaved(values)


def _drift(random: Random) -> Rounds:
    return _interleaved(np.linspace(0, 0.1, 2 * MOST) + random.normal(0, 0.01, 2 * MOST))


def _two_modes(random: Random) -> Rounds:
    return _interleaved(random.normal(0, 0.004, 2 * MOST) + 0.04 * (random.random(2 * MOST) < 0.5))


KINDS: dict[str, Callable[[Random], Rounds]] = {
    "calm, 0.5 %": _noise(0.005),
    "noisy, 1.5 %": _noise(0.015),
    "noisy, 3 %": _noise(0.03),
    "a tenth of the rounds disturbed": _outliers,
    "each round like the one before": _dependent,
    "10 % slower in the end": _drift,
    "two clock speeds": _two_modes,
    "busy: medians 30 %, fastest runs 2 %": _noise(0.02),
}


def in_turn(kind: str, random: Random, slowdown: float = 0.0) -> Comparison:
    """Compare a setup, slower by `slowdown` (0.05 is 5 %), with its baseline, in as many rounds as are needed."""
    new, old = KINDS[kind](random)
    is_busy = kind.startswith("busy")
    done: list[Measurement] = []
    for number in range(MOST):
        done.append(_measurement("new", number, new[number] + np.log1p(slowdown), random, is_busy))
        done.append(_measurement("old", number, old[number], random, is_busy))
        if is_decided(done, {"new": "old"}):
            break
    return compare_in_turn(rows_of(done), {"new": "old"}, confidence_at(number + 1))[0]


def two_sessions(rounds: int, random: Random, slowdown: float = 0.0, sd: float = 0.015) -> Comparison:
    """Compare one session with the file of another; sessions differ by 1 %."""
    new, old = random.normal(0, 0.01, 2)
    rows = [
        rows_of([_measurement("m", number, shift + random.normal(0, sd), random, False) for number in range(rounds)])
        for shift in (new + np.log1p(slowdown), old)
    ]
    return compare(*rows)[0]


def _measurement(name: str, number: int, log: float, random: Random, is_busy: bool) -> Measurement:
    times = 10 * np.exp(log) * (1 + 0.002 * random.random(_RUNS))
    if is_busy:  # all but the fastest runs wait for others, in each round to another degree
        times[2:] *= 1 + random.gamma(2.0, abs(random.normal(0.0, 0.3)), _RUNS - 2)
    values = {
        "status": "ok",
        "samples_ms": [float(time) for time in times],
        "other_cores": 1.5 if is_busy else 0.0,
    }
    return Measurement(setup=Setup(id=name, title=name, artifact=Path("m.onnx")), round=number, values=values)
