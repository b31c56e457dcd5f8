"""The search: one short look at everything, settings for what is fast, and rounds in turn for the few fastest.

A look costs one process. What is far slower than the fastest is never looked at again, so that most of the time goes to
those that are hard to tell apart. The winner is decided by the same paired comparison as `edge bench --compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.benchmark.harness import Measurement, Setup
from edge.benchmark.ranking import Rank, ranking
from edge.benchmark.rows import Row, rows_of
from edge.tuning.candidates import variants

# After its first look, a way that takes longer than the fastest by more than this is out. Looks are short, and the
# rounds of a busy machine differ by a few percent (`ROUNDS_APART`).
PRUNED = 1.25
# Settings are tried on ways that are within this of the fastest: a setting seldom gains more.
SETTINGS_WITHIN = 1.6
MAX_FINALISTS = 4
FINAL_ROUNDS = 5

Measure = Callable[[Sequence[Setup], int], Iterator[Measurement]]
# Returns why a setup's outputs are wrong, or nothing.
Prove = Callable[[Setup], str]


@dataclass(frozen=True, kw_only=True)
class TuneTrial:
    """One way to run the model.

    status: "winner", "tied" with it, "slower", "wrong" if its proof failed, or "failed".
    ms: Its median in its last measurement; None if it failed.
    looks: How many processes measured it.
    reason: Why it failed, or what is wrong.
    """

    setup: Setup
    status: str
    ms: float | None
    looks: int
    reason: str = ""


@dataclass
class Search:
    """The state of a search; `rows` has the last row of each setup by its id."""

    measure: Measure
    prove: Prove
    rows: dict[str, Row] = field(default_factory=dict)
    setups: dict[str, Setup] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    proofs: dict[str, str] = field(default_factory=dict)  # the reason why it is wrong, or nothing
    ranks: Sequence[Rank] = ()

    def run(self, candidates: Sequence[Setup]) -> None:
        """Search; the results are in the fields."""
        self._look(candidates)
        self._look([one for fast in self._best_of_each_kind() for one in variants(fast)])
        finalists = self._finalists()
        if len(finalists) > 1:
            rows = self._look(finalists, FINAL_ROUNDS)
            self.ranks = ranking(rows)

    @property
    def winner(self) -> Row | None:
        """The fastest row whose outputs are right; None if there is none."""
        if self.ranks:
            return self.rows[self.ranks[0].setup]
        return next(iter(self._proven(1)), None)

    def trials(self) -> list[TuneTrial]:
        """Return every way that was tried, fastest first, those that failed last."""
        winner = self.winner
        tied = {rank.setup for rank in self.ranks if rank.place == 1}

        def status(row: Row) -> str:
            if self.proofs.get(row.setup):
                return "wrong"
            if not row.samples_ms:
                return "failed"
            if winner is not None and row.setup == winner.setup:
                return "winner"
            return "tied" if row.setup in tied else "slower"

        found = [
            TuneTrial(
                setup=self.setups[row.setup],
                status=status(row),
                ms=row.median_ms,
                looks=self.looks[row.setup],
                reason=self.proofs.get(row.setup) or (row.message if not row.samples_ms else ""),
            )
            for row in self.rows.values()
        ]
        order = ("winner", "tied", "slower", "wrong", "failed")
        return sorted(found, key=lambda one: (order.index(one.status), one.ms or 0.0))

    def _look(self, setups: Sequence[Setup], rounds: int = 1) -> list[Row]:
        new = [one for one in setups if rounds > 1 or one.id not in self.setups]
        self.setups.update({one.id: one for one in new})
        measurements: list[Measurement] = []
        if new:
            for one in self.measure(new, rounds):
                measurements.append(one)
                self.looks[one.setup.id] = self.looks.get(one.setup.id, 0) + 1
        rows = rows_of(measurements)
        self.rows.update({row.setup: row for row in rows})
        return rows

    def _measured(self) -> list[Row]:
        found = [row for row in self.rows.values() if row.samples_ms and not self.proofs.get(row.setup)]
        return sorted(found, key=_speed)

    def _best_of_each_kind(self) -> Iterator[Setup]:
        """Yield the fastest number of threads of each model and engine that is not far slower than the fastest."""
        fastest = self._measured()
        seen = set()
        for row in fastest:
            setup = self.setups[row.setup]
            kind = (setup.artifact, setup.runtime)
            if kind not in seen and _speed(row) <= SETTINGS_WITHIN * _speed(fastest[0]):
                seen.add(kind)
                yield setup

    def _finalists(self) -> list[Setup]:
        proven = self._proven(MAX_FINALISTS)
        return [self.setups[row.setup] for row in proven if _speed(row) <= PRUNED * _speed(proven[0])]

    def _proven(self, most: int) -> list[Row]:
        """Return the fastest rows whose outputs are right; those that are wrong are noted."""
        found: list[Row] = []
        for row in self._measured():
            if len(found) == most:
                break
            if row.setup not in self.proofs:
                self.proofs[row.setup] = self.prove(self.setups[row.setup])
            if not self.proofs[row.setup]:
                found.append(row)
        return found


def _speed(row: Row) -> float:
    """Return what ways are compared by after one look: the 1st percentile, which other programs change least."""
    return float(np.percentile(np.asarray(row.samples_ms, np.float64), 1.0))
