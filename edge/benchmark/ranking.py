"""Rank the setups of one run by speed: how many times as fast the fastest is, with intervals and ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge.benchmark.compare import SAME, SLOWER, values_in_turn, verdict_of
from edge.benchmark.round_intervals import paired_ratio
from edge.benchmark.rows import Row
from runtimes.measurement.statistics import Interval

_ERROR = 0.05  # for all comparisons of one ranking together


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of a setup among those that were measured in the same rounds on the same machine.

    setup: The setup's id.
    place: 1 is the fastest. Setups that the rounds cannot distinguish share a place.
    is_tied: Whether another setup shares the place.
    fastest: The id of the fastest setup.
    slowdown: This setup's time / the fastest's, with its interval; None for the fastest.
    """

    setup: str
    place: int
    is_tied: bool
    fastest: str
    slowdown: Interval | None


def rank_setups(rows: Sequence[Row]) -> list[Rank]:
    """Rank the measured setups of each machine, fastest first; machines in the order of the rows.

    A machine with one setup, or with one round, has no ranking.
    """
    measured = [row for row in rows if row.samples_ms and len(row.rounds) > 1]
    hosts = list(dict.fromkeys(row.host for row in measured))
    return [rank for host in hosts for rank in _of_one([row for row in measured if row.host == host])]


def _of_one(rows: Sequence[Row]) -> Iterator[Rank]:
    if len(rows) < 2:
        return
    # Each comparison takes its share of the error, so that one in twenty rankings is wrong, not one in twenty ratios.
    confidence = 1 - _ERROR / (len(rows) - 1)
    ordered = _fastest_first(rows, confidence)
    places, leader = [1], ordered[0]
    for number, row in enumerate(ordered[1:], start=2):
        if verdict_of(_slowdown(row, leader, confidence)) == SLOWER:
            leader = row
            places.append(number)
        else:
            places.append(places[-1])
    for row, place in zip(ordered, places, strict=True):
        yield Rank(
            setup=row.setup,
            place=place,
            is_tied=places.count(place) > 1,
            fastest=ordered[0].setup,
            slowdown=None if row is ordered[0] else _slowdown(row, ordered[0], confidence),
        )


def _fastest_first(rows: Sequence[Row], confidence: float) -> list[Row]:
    """Order by what comparisons take from each round, which on a busy machine is not the median."""
    first = min(rows, key=lambda row: row.median_ms or 0.0)

    def slowdown(row: Row) -> float:
        found = _slowdown(row, first, confidence)
        return 1.0 if found is None else found.value

    return sorted(rows, key=lambda row: (slowdown(row), row.median_ms or 0.0))


def _slowdown(row: Row, fastest: Row, confidence: float) -> Interval | None:
    new, old, _ = values_in_turn(row, fastest)
    return paired_ratio(new, old, confidence)


def is_same(rank: Rank) -> bool:
    """Return whether the setup is certainly as fast as the fastest, within 3 %."""
    return verdict_of(rank.slowdown) == SAME
