"""Faster, slower or no difference: the rows of two runs held against one another, setup by setup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.bench.rows import Row, round_samples
from runtimes.stats import Interval, median, ratio_of_medians

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "no difference", "too few runs"
# What must be equal for a difference to be the model's or the engine's doing: key → words.
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


@dataclass(frozen=True)
class Comparison:
    """One setup, now against then.

    `ratio` is new time / old time with its 95 % interval: below 1 is faster. `notes` name what else differs.
    """

    setup: str
    verdict: str
    ratio: Interval | None
    notes: tuple[str, ...] = ()


def compare(new: Sequence[Row], old: Sequence[Row]) -> list[Comparison]:
    """A comparison for each setup that both runs measured, in the order of `new`."""
    before = {row["setup"]: row for row in old if row["samples_ms"]}
    pairs = [(row, before[row["setup"]]) for row in new if row["samples_ms"] and row["setup"] in before]
    return [_compared(row, other) for row, other in pairs]


def unmatched(new: Sequence[Row], old: Sequence[Row]) -> list[str]:
    """The setups of `new` that were measured, and for which `old` has no measurement."""
    known = {row["setup"] for row in old if row["samples_ms"]}
    return [row["setup"] for row in new if row["samples_ms"] and row["setup"] not in known]


def _compared(row: Row, other: Row) -> Comparison:
    ratio = _ratio(row, other)
    notes = tuple(f"{words} differs" for key, words in _SETTING.items() if row.get(key) != other.get(key))
    if min(len(row["rounds"]), len(other["rounds"])) < 2:
        notes += ("one process only on one side: what differs from process to process is not in the interval",)
    return Comparison(row["setup"], _verdict(ratio), ratio, notes)


def _verdict(ratio: Interval | None) -> str:
    if ratio is None:
        return UNKNOWN
    if ratio.high < 1:
        return FASTER
    return SLOWER if ratio.low > 1 else SAME


def _ratio(row: Row, other: Row) -> Interval | None:
    """The ratio of the medians; its interval is as wide as the runs make it, and as the rounds lie apart.

    Runs in one process are more alike than processes are: an interval from runs alone finds a difference between
    two measurements of the same thing.
    """
    within = ratio_of_medians(row["samples_ms"], other["samples_ms"])
    if within is None:
        return None
    mine, theirs = _round_medians(row), _round_medians(other)
    low, high = min(mine) / max(theirs), max(mine) / min(theirs)
    return Interval(min(within.low, low), within.value, max(within.high, high))


def _round_medians(row: Row) -> list[float]:
    return [median(samples) for samples in round_samples(row) if samples] or [median(row["samples_ms"])]
