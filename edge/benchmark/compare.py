"""Compare setups with the rows of an older run, or with a baseline that is measured alternately with them.

Within one run on a machine, disturbances affect both halves of a pair of rounds and cancel out. Between two runs at
different times they do not, so the interval against an older file includes the difference between sessions, and often
the honest answer is ONE_SESSION: measure the baseline again, alternately.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.benchmark.harness import Measurement
from edge.benchmark.round_intervals import paired_ratio, separate_ratio
from edge.benchmark.rows import Row, round_samples, rows_of
from edge.benchmark.warnings import OTHER_CORES, ROUNDS_APART, other_cores
from runtimes.measurement.statistics import Interval, median

FASTER, SLOWER, SAME = "faster", "slower", "no difference"
TOO_FEW, ONE_SESSION = "too few rounds", "one session only"
VERDICTS = (FASTER, SLOWER, SAME, TOO_FEW, ONE_SESSION)
DECIDED = (FASTER, SLOWER, SAME)
MEDIAN, FIRST_PERCENTILE = "median", "1st percentile"
# Times whose ratio is certainly within ±3 % count as equal.
_SAME = 0.03
# After these numbers of rounds the interval is evaluated, with this confidence. The errors add up to 5 %, so that a
# setup compared with itself is called faster or slower in at most 5 % of all runs, whenever the rounds stopped.
LOOKS = ((5, 0.995), (8, 0.99), (12, 0.985), (20, 0.98))
# For a fixed number of rounds: the confidence of the last evaluation.
_FIXED = LOOKS[-1][1]
MAX_ROUNDS = LOOKS[-1][0]
_AGAINST_FILE = 0.96  # one evaluation
# Against a file, more rounds than these do not help: the difference between sessions then dominates.
ROUNDS_AGAINST_FILE = LOOKS[0][0]
# What must be equal for a difference to be caused by the model or the engine: key → description.
_SETTING = {
    "machine": "the machine",
    "runtime_version": "the engine's version",
    "threads": "the number of threads",
    "precision": "the precision",
    "device": "the device",
    "settings": "the settings",
    "input": "the input",
    "protocol": "the protocol",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of one setup with its baseline.

    setup: The setup's id.
    verdict: One of VERDICTS.
    ratio: New time / old time with its interval; below 1 is faster. None if there are too few rounds for an interval.
    confidence: The confidence of that interval.
    statistic: What each round counts as: MEDIAN of its runs; FIRST_PERCENTILE if other programs were busy or rounds
        differ, because the fastest runs are the least disturbed.
    rounds: The number of rounds, new and old.
    baseline: The id of the setup that was measured in turn; None for the rows of an older run.
    notes: What else differs, and what would make the answer better.
    """

    setup: str
    verdict: str
    ratio: Interval | None
    confidence: float
    statistic: str
    rounds: tuple[int, int]
    baseline: str | None = None
    notes: tuple[str, ...] = ()


def compare(new: Sequence[Row], old: Sequence[Row]) -> list[Comparison]:
    """Compare each setup with the same setup in an older run, in the order of `new`."""
    before = {row.setup: row for row in old if row.samples_ms}
    pairs = [(row, before[row.setup]) for row in new if row.samples_ms and row.setup in before]
    return [_against_file(row, other) for row, other in pairs]


def list_unmatched(new: Sequence[Row], old: Sequence[Row]) -> list[str]:
    """List the setups measured in `new` for which `old` has no measurement."""
    known = {row.setup for row in old if row.samples_ms}
    return [row.setup for row in new if row.samples_ms and row.setup not in known]


def compare_in_turn(
    rows: Sequence[Row], baselines: Mapping[str, str], confidence: float | None = None
) -> list[Comparison]:
    """Compare setups with their baselines, which were measured in the same rounds.

    baselines: The id of a setup → the id of its baseline.
    confidence: That of the interval; None is right for a number of rounds that was fixed beforehand.
    """
    by_setup = {row.setup: row for row in rows if row.samples_ms}
    pairs = [(by_setup[one], by_setup[other]) for one, other in baselines.items() if {one, other} <= set(by_setup)]
    return [_in_turn(row, other, confidence or _FIXED) for row, other in pairs]


def confidence_at(rounds: int) -> float:
    """Return the confidence of the interval if the rounds ended at the evaluation after `rounds`, or at the next."""
    return next((confidence for count, confidence in LOOKS if rounds <= count), _FIXED)


def is_decided(measurements: Sequence[Measurement], baselines: Mapping[str, str]) -> bool:
    """Return whether an evaluation follows these rounds and decides every comparison on the measuring machine."""
    rounds = 1 + max((one.round for one in measurements), default=-1)
    confidence = dict(LOOKS).get(rounds)
    if confidence is None:
        return False
    found = compare_in_turn(rows_of(measurements), baselines, confidence)
    return all(one.verdict in DECIDED for one in found)


def values_in_turn(row: Row, other: Row) -> tuple[list[float], list[float], str]:
    """Return one value for each round that both rows have, and the statistic that they are."""
    statistic = _statistic(row, other)
    mine, theirs = _by_round(row, statistic), _by_round(other, statistic)
    shared = sorted(set(mine) & set(theirs))
    return [mine[number] for number in shared], [theirs[number] for number in shared], statistic


def _in_turn(row: Row, other: Row, confidence: float) -> Comparison:
    new, old, statistic = values_in_turn(row, other)
    ratio = paired_ratio(new, old, confidence)
    verdict = verdict_of(ratio)
    return Comparison(
        setup=row.setup,
        verdict=verdict,
        ratio=ratio,
        confidence=confidence,
        statistic=statistic,
        rounds=(len(new), len(old)),
        baseline=other.setup,
        notes=_differences(row, other, ("runtime_version", "threads", "device")),
    )


def _against_file(row: Row, other: Row) -> Comparison:
    statistic = _statistic(row, other)
    new, old = list(_by_round(row, statistic).values()), list(_by_round(other, statistic).values())
    ratio = separate_ratio(new, old, _AGAINST_FILE)
    verdict, notes = verdict_of(ratio), _differences(row, other, _SETTING)
    if verdict == TOO_FEW:
        if min(len(new), len(old)) >= ROUNDS_AGAINST_FILE:
            verdict = ONE_SESSION
            notes += ("rounds of another session cannot tell: give --compare the old artifact, to measure it in turn",)
        else:
            notes += (f"measure both with --rounds {ROUNDS_AGAINST_FILE} or more",)
    return Comparison(
        setup=row.setup,
        verdict=verdict,
        ratio=ratio,
        confidence=_AGAINST_FILE,
        statistic=statistic,
        rounds=(len(new), len(old)),
        notes=notes,
    )


def _differences(row: Row, other: Row, keys: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{_SETTING[key]} differs" for key in keys if getattr(row, key) != getattr(other, key))


def verdict_of(ratio: Interval | None) -> str:
    """Return the verdict of an interval; TOO_FEW if it is too wide for one."""
    if ratio is None:
        return TOO_FEW
    if ratio.high < 1:
        return FASTER
    if ratio.low > 1:
        return SLOWER
    return SAME if ratio.low > 1 - _SAME and ratio.high < 1 + _SAME else TOO_FEW


def _statistic(*rows: Row) -> str:
    is_calm = all(other_cores(row) <= OTHER_CORES and _apart(row) <= ROUNDS_APART for row in rows)
    return MEDIAN if is_calm else FIRST_PERCENTILE


def _apart(row: Row) -> float:
    medians = list(_by_round(row, MEDIAN).values())
    return max(medians) / min(medians) - 1


def _by_round(row: Row, statistic: str) -> dict[int, float]:
    """Return the value of each round, by the round's number."""
    samples = [(part, times) for part, times in zip(row.rounds, round_samples(row), strict=True) if len(times)]
    if statistic == MEDIAN:
        found = {part.round: part.median_ms or median(times) for part, times in samples}
        return found or {0: median(row.samples_ms)}
    return {part.round: _first_percentile(times) for part, times in samples} or {0: _first_percentile(row.samples_ms)}


def _first_percentile(samples: Sequence[float]) -> float:
    """Return the nearest-rank percentile; of up to 100 samples it is the smallest."""
    rank = math.ceil(len(samples) / 100) - 1
    return float(np.partition(np.asarray(samples, np.float64), rank)[rank])
