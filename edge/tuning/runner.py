"""Tune models: convert them if asked, search on this machine or on a board, and report the winner."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge.benchmark.harness import Measurement, Setup, measure_all
from edge.benchmark.report import documents
from edge.benchmark.rows import Row
from edge.benchmark.warnings import findings
from edge.console.progress import OnProgress, ProgressEvent
from edge.tuning.candidates import board_candidates, first_candidates, thread_counts
from edge.tuning.search import Search, TuneTrial
from edge.workers.process import Worker
from edge.workers.transport import LOCAL, Transport
from runtimes import host
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.errors import EdgeError, EngineError, InputError
from runtimes.jobs import VerifyJob
from runtimes.measurement.statistics import Interval

_log = logging.getLogger(__name__)
_PROOF_S = 600.0
_SHORTEST_LOOK_S = 0.1  # the least that the protocol takes
_LOOK = 1 / 3  # the time of a look / that of a measurement of the comparison


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What is tried, and how long.

    runtimes: The engines to try; empty: all that are installed here, or the preferred one of the format on a board.
    threads: The numbers of threads; empty: powers of two and all cores.
    seconds: The time of one measurement of the comparison; a look takes less.
    on: A board to tune for, over ssh; None is this machine.
    offline: Copy the engines from this machine to the board.
    timeout_s: The time limit of one process, in seconds.
    """

    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    seconds: float = 0.6
    on: str | None = None
    offline: bool = False
    timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """The result of a search.

    winner: The fastest row whose outputs are right; its `low_ms` and `high_ms` are the interval of its median.
    lead: The time of the next one that is slower / the winner's, with its interval; None if there is none.
    trials: Every way that was tried, fastest first.
    command: What measures the winner again.
    seconds: How long the search took.
    """

    winner: Row
    lead: Interval | None
    trials: Sequence[TuneTrial]
    command: str
    seconds: float

    def to_json(self) -> JsonObject:
        """Return the object that `edge tune --json` prints."""
        (winner,) = documents([self.winner], findings([self.winner]), ())
        return {
            "winner": winner,
            "lead": to_json(self.lead) if self.lead is not None else None,
            "trials": [_trial(one) for one in self.trials],
            "command": self.command,
            "seconds": self.seconds,
        }


def run_tuning(models: Sequence[Path], options: TuneOptions, on_progress: OnProgress) -> TuneReport:
    """Search for the fastest way to run any of the models with right outputs.

    Raises EngineMissingError if no engine for a model is installed, and EngineError if nothing could be measured.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        place: Transport = LOCAL
        if options.on is None:
            cores = int(host.facts()["cpu"]["usable_cores"] or 1)
            threads = options.threads or thread_counts(cores)
            candidates = first_candidates(models, options.runtimes, threads)
        else:
            place, cores = _board(options, stack, on_progress)
            threads = options.threads or thread_counts(cores)
            candidates = board_candidates(models, options.runtimes, threads)
        screening = _Screening(place, options, on_progress, stack)
        measure = partial(_measure, what="comparing", place=place, options=options, on_progress=on_progress)
        search = Search(look=screening.measure, measure=measure, prove=screening.verify)
        search.run(candidates)
    trials, winner = search.trials(), search.winner
    if winner is None:
        reasons = "; ".join(dict.fromkeys(one.reason for one in trials if one.reason))
        raise EngineError(f"nothing that was tried gives right outputs: {reasons}", "edge bench shows each error")
    lead = next((rank.slowdown for rank in search.ranks if rank.place > 1), None)
    setup = search.setups[winner.setup]
    return TuneReport(
        winner=winner, lead=lead, trials=trials, command=_command(setup, options.on), seconds=time.monotonic() - start
    )


def _board(options: TuneOptions, stack: ExitStack, on_progress: OnProgress) -> tuple[Transport, int]:
    """Connect to the board; returns it and the number of its cores."""
    from edge.remote.board import Board
    from edge.remote.facts import remote_facts

    assert options.on is not None
    cores = int(remote_facts(options.on)["machine"]["cpu"]["usable_cores"] or 1)
    note = lambda text: on_progress(ProgressEvent(text=text, total=1))  # noqa: E731
    return stack.enter_context(Board(options.on, offline=options.offline, note=note)), cores


class _Screening:
    """Takes looks and proofs in one process for each engine: starting it takes longer than a look.

    The processes end with `stack`.
    """

    def __init__(self, place: Transport, options: TuneOptions, on_progress: OnProgress, stack: ExitStack) -> None:
        self._place, self._on_progress, self._stack = place, on_progress, stack
        self._options = replace(options, seconds=max(_SHORTEST_LOOK_S, _LOOK * options.seconds))
        self._workers: dict[str | None, Worker] = {}

    def measure(self, setups: Sequence[Setup]) -> Iterator[Measurement]:
        """Measure each setup for a fraction of the time of a comparison."""
        for setup in setups:
            yield from _measure(
                [setup],
                what="looking at",
                place=self._place,
                options=self._options,
                on_progress=self._on_progress,
                worker=self._worker(setup),
            )

    def verify(self, setup: Setup) -> str:
        """Return what is wrong with a setup's outputs; a bare file has nothing to be compared with."""
        artifact = Artifact.open(setup.artifact)
        if artifact.is_bare or artifact.manifest.selfcheck is None:
            return ""
        self._on_progress(ProgressEvent(text=f"verifying {setup.title}", total=1))
        job = VerifyJob(str(setup.artifact), setup.runtime, setup.options)
        try:
            answer = self._worker(setup).run(job, timeout_s=_PROOF_S)
        except InputError:
            raise  # the artifact itself is damaged
        except EdgeError as error:
            return error.message
        return "" if answer.passed else answer.message

    def _worker(self, setup: Setup) -> Worker:
        if setup.runtime not in self._workers:
            self._workers[setup.runtime] = self._stack.enter_context(Worker(setup.worker, self._place))
        return self._workers[setup.runtime]


def _measure(
    setups: Sequence[Setup],
    *,
    what: str,
    place: Transport,
    options: TuneOptions,
    on_progress: OnProgress,
    worker: Worker | None = None,
) -> Iterator[Measurement]:
    protocol: JsonObject = {"name": "steady", "max_s": options.seconds}
    timed = [replace(one, protocol=protocol) for one in setups]
    for done, one in enumerate(measure_all(timed, 1, options.timeout_s, place=place, worker=worker), start=1):
        text = f"{what} {one.setup.title}: {one.values['status']}"
        on_progress(ProgressEvent(text=text, done=done, total=len(setups)))
        yield one


def _command(setup: Setup, on: str | None) -> str:
    words = ["edge", "bench", str(setup.artifact), "--runtime", str(setup.runtime)]
    words += ["--threads", str(setup.options.threads)]
    for name, value in setup.options.settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join([*words, *(["--on", on] if on else [])])


def _trial(one: TuneTrial) -> JsonObject:
    setup = one.setup
    return {
        "setup": setup.title,
        "artifact": str(setup.artifact),
        "runtime": setup.runtime,
        "threads": setup.options.threads,
        "settings": dict(setup.options.settings),
        "status": one.status,
        "median_ms": one.ms,
        "looks": one.looks,
        "reason": one.reason,
    }
