"""The search: successive halving. Short looks at everything, longer ones at what is fast, then rounds in turn.

Looks only sort out what is far slower. They are taken in one process for each engine, because starting it and importing
the engine takes longer than a look. The few that remain are measured in turn, each time in a new process, and compared
as by `edge bench --compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge.benchmark.harness import Measurement, Setup
from edge.benchmark.ranking import Rank, rank_setups
from edge.benchmark.rows import Row, rows_of
from edge.tuning.candidates import variants

# A setup whose time is more than this many times the fastest one's is out: after its first look, the second look, and
# each round of the comparison. On a busy machine two looks may differ by a third, and its rounds by a few percent.
AFTER_LOOK, AFTER_SECOND_LOOK, AFTER_ROUND = 1.5, 1.2, 1.1
# Settings are tried on setups that are within this of the fastest: a setting seldom gains more.
SETTINGS_WITHIN = 1.6
MAX_FINALISTS = 3
FINAL_ROUNDS = 3

Look = Callable[[Sequence[Setup]], Iterator[Measurement]]
# Prove returns why a setup's outputs are wrong, or nothing.
Prove = Callable[[Setup], str]


@dataclass(frozen=True, kw_only=True)
class TuneTrial:
    """One way to run the model.

    status: "winner", "tied" with it, "slower", "wrong" if its proof failed, or "failed".
    ms: Its median in the comparison, or else in its last look; None if it failed.
    looks: How many times it was measured.
    reason: Why it failed, or what is wrong.
    """

    setup: Setup
    status: str
    ms: float | None
    looks: int
    reason: str = ""


@dataclass(kw_only=True)
class Search:
    """The state of a search.

    look: Measures each setup briefly.
    measure: Measures each setup once, each in a process of its own.
    prove: Checks the outputs of a setup; once for each artifact, engine and settings, whatever the number of threads.
    rows: The row of each setup by its id: that of the comparison if it took part, else that of its looks.
    looks: How many times each setup was measured.
    ranks: The comparison's ranking.
    """

    look: Look
    measure: Look
    prove: Prove
    rows: dict[str, Row] = field(default_factory=dict)
    setups: dict[str, Setup] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    ranks: Sequence[Rank] = ()
    _measurements: dict[str, list[Measurement]] = field(default_factory=dict)
    _proofs: dict[Hashable, str] = field(default_factory=dict)
    _finalists: Sequence[str] = ()

    def run(self, candidates: Sequence[Setup]) -> None:
        """Search; the results are in the fields."""
        for setups in _by_kind(candidates):
            self._look_at_threads(setups)
        self._keep(self.look([one for fast in self._best_of_each_kind() for one in variants(fast)]))
        fast = self._fast(AFTER_LOOK)
        if len(fast) > MAX_FINALISTS:
            self._keep(self.look(fast))
            fast = self._fast(AFTER_SECOND_LOOK)
        self._compare([one for one in fast if not self._is_wrong(one)][:MAX_FINALISTS])

    @property
    def winner(self) -> Row | None:
        """The fastest row whose outputs are right; None if there is none."""
        if self.ranks:
            return self.rows[self.ranks[0].setup]
        return next((row for row in self._sort_by_speed() if row.setup in self._finalists), None)

    def trials(self) -> list[TuneTrial]:
        """Return every way that was tried, fastest first, those that failed last."""
        winner = self.winner
        tied = {rank.setup for rank in self.ranks if rank.place == 1}

        def status(row: Row, wrong: str) -> str:
            if wrong:
                return "wrong"
            if not row.samples_ms:
                return "failed"
            if winner is not None and row.setup == winner.setup:
                return "winner"
            return "tied" if row.setup in tied else "slower"

        found = []
        for row in self.rows.values():
            setup = self.setups[row.setup]
            wrong = self._proofs.get(_proof_key(setup), "")
            reason = wrong or (row.message if not row.samples_ms else "")
            looks = self.looks[row.setup]
            found.append(
                TuneTrial(setup=setup, status=status(row, wrong), ms=row.median_ms, looks=looks, reason=reason)
            )
        order = ("winner", "tied", "slower", "wrong", "failed")
        return sorted(found, key=lambda one: (order.index(one.status), one.ms or 0.0))

    def _keep(self, measurements: Iterable[Measurement]) -> None:
        for one in measurements:
            name = one.setup.id
            known = self._measurements.setdefault(name, [])
            known.append(replace(one, round=len(known)))
            self.setups[name] = one.setup
            self.looks[name] = self.looks.get(name, 0) + 1
            (self.rows[name],) = rows_of(known)

    def _look_at_threads(self, setups: Sequence[Setup]) -> None:
        """Look at one kind with ever fewer threads, until that makes it far slower: even fewer are slower still."""
        best = float("inf")
        for setup in sorted(setups, key=lambda one: -(one.options.threads or 0)):
            self._keep(self.look([setup]))
            row = self.rows[setup.id]
            if row.samples_ms and _speed(row) > AFTER_LOOK * best:
                break
            best = min(best, _speed(row)) if row.samples_ms else best

    def _sort_by_speed(self) -> list[Row]:
        return sorted((row for row in self.rows.values() if row.samples_ms), key=_speed)

    def _best_of_each_kind(self) -> Iterator[Setup]:
        """Yield the fastest number of threads of each model and engine that is not far slower than the fastest."""
        seen = set()
        for setup in self._fast(SETTINGS_WITHIN):
            if _kind(setup) not in seen:
                seen.add(_kind(setup))
                yield setup

    def _fast(self, factor: float) -> list[Setup]:
        """Return the setups that take at most `factor` × the time of the fastest one whose outputs are right."""
        measured = self._sort_by_speed()
        best = next((_speed(row) for row in measured if not self._is_wrong(self.setups[row.setup])), 0.0)
        return [self.setups[row.setup] for row in measured if _speed(row) <= factor * best]

    def _is_wrong(self, setup: Setup) -> bool:
        key = _proof_key(setup)
        if key not in self._proofs:
            self._proofs[key] = self.prove(setup)
        return bool(self._proofs[key])

    def _compare(self, finalists: Sequence[Setup]) -> None:
        """Measure in turn, without those that turn out to be far slower, and rank them."""
        self._finalists, left = [one.id for one in finalists], list(finalists)
        for name in self._finalists:
            self._measurements[name] = []  # looks are not comparable: they ran in another process, for less time
        for number in range(FINAL_ROUNDS):
            self._keep(self.measure(left if number % 2 == 0 else left[::-1]))
            rows = [self.rows[one.id] for one in left if self.rows[one.id].is_ok]
            limit = AFTER_ROUND * min(map(_speed, rows), default=0.0)
            left = [self.setups[row.setup] for row in rows if _speed(row) <= limit]
            if number and len(left) < 2:
                break
        self.ranks = rank_setups([self.rows[name] for name in self._finalists])


def _by_kind(candidates: Iterable[Setup]) -> Iterable[list[Setup]]:
    groups: dict[Hashable, list[Setup]] = {}
    for one in candidates:
        groups.setdefault(_kind(one), []).append(one)
    return groups.values()


def _kind(setup: Setup) -> Hashable:
    return setup.artifact, setup.runtime


def _proof_key(setup: Setup) -> Hashable:
    return setup.artifact, setup.runtime, tuple(sorted(setup.options.settings.items()))


def _speed(row: Row) -> float:
    """Return what setups are compared by after a few looks: the 1st percentile, which other programs change least."""
    return float(np.percentile(np.asarray(row.samples_ms, np.float64), 1.0))
