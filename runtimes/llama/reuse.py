"""What of a sequence has been read already: its beginning, and what follows a gap."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Sequence

# A shorter match behind a gap is not worth moving: it may be chance, and moving rounds.
_SHORTEST_MOVE = 16


@dataclass(frozen=True)
class Reuse:
    """How to turn what a slot has read into the beginning of a new sequence.

    The first `kept` tokens stay; `moved` tokens from position `start` on come right behind them; the rest is dropped.
    """

    kept: int
    start: int = 0
    moved: int = 0

    @property
    def total(self) -> int:
        """How many tokens need not be read."""
        return self.kept + self.moved


def plan(read: Sequence[int], wanted: Sequence[int], can_move: bool) -> Reuse:
    """The most of `read` that `wanted` can use. At least its last token is left to read, for the scores behind it."""
    most = len(wanted) - 1
    kept = _common(read, wanted, 0, 0, most)
    if not can_move or kept == len(read) or most - kept < _SHORTEST_MOVE:
        return Reuse(kept)
    start = _find(read, wanted[kept : kept + _SHORTEST_MOVE], kept + 1)
    if start is None:
        return Reuse(kept)
    return Reuse(kept, start, _common(read, wanted, start, kept, most - kept))


def _common(read: Sequence[int], wanted: Sequence[int], start: int, at: int, most: int) -> int:
    """How many tokens of `read` from `start` on equal those of `wanted` from `at` on, `most` at most."""
    count = 0
    most = min(most, len(read) - start)
    while count < most and read[start + count] == wanted[at + count]:
        count += 1
    return count


def _find(read: Sequence[int], some: Sequence[int], start: int) -> int | None:
    """The first place from `start` on where `read` holds `some`; None where there is none."""
    # As bytes: a search in C, where a context of 100,000 tokens would take Python too long for every message.
    whole, part = array("i", read).tobytes(), array("i", some).tobytes()
    width = array("i").itemsize
    at = whole.find(part, start * width)
    while at % width and at >= 0:  # bytes of two neighbours together
        at = whole.find(part, at + 1)
    return at // width if at >= 0 else None
