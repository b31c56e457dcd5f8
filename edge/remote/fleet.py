"""Measure on several boards in parallel; each board runs one measurement at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing

from edge.benchmark.harness import IsDecided, Measurement, OnProgress, Setup, failure, measure_all
from edge.remote import trtexec
from edge.remote.board import Board, Leftovers
from edge.remote.probe import probe
from edge.remote.recovered_samples import save
from runtimes.errors import EdgeError, UsageError


def measure_on(
    boards: Mapping[str, Board],
    setups: Mapping[str, Sequence[Setup]],
    rounds: int = 2,
    timeout_s: float | None = 300.0,
    *,
    on_progress: OnProgress | None = None,
    on_leftovers: Leftovers = save,
    is_decided: IsDecided | None = None,
) -> Iterator[Measurement]:
    """Measure the setups of each host on its board, and yield each measurement as soon as it arrives.

    If a board cannot be reached, each of its setups yields a failed measurement; the other boards continue.
    `on_leftovers` is passed to `Board.connect`, `is_decided` to `edge.benchmark.measure_all`. When the iteration stops
    early, for example on Ctrl+C, the connections are cut and the boards stop their work.
    """
    results: queue.Queue[Measurement | BaseException | None] = queue.Queue()

    def measure(host: str) -> None:
        try:
            on_one = _on_one(
                boards[host],
                setups[host],
                rounds,
                timeout_s,
                on_progress=on_progress,
                on_leftovers=on_leftovers,
                is_decided=is_decided,
            )
            for measurement in on_one:
                results.put(measurement)
            results.put(None)
        except BaseException as error:  # a bug: raise it in the main thread
            results.put(error)

    threads = [threading.Thread(target=measure, args=(host,), daemon=True) for host in setups]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            one = results.get()
            if isinstance(one, BaseException):
                raise one
            if one is None:
                running -= 1
            else:
                yield one
    finally:
        for board in boards.values():
            board.give_up()
        for thread in threads:
            thread.join()


def _on_one(
    board: Board,
    setups: Sequence[Setup],
    rounds: int,
    timeout_s: float | None,
    *,
    on_progress: OnProgress | None,
    on_leftovers: Leftovers,
    is_decided: IsDecided | None,
) -> Iterator[Measurement]:
    try:
        setups = yield from _measure_by_trtexec(
            board, setups, rounds, timeout_s, on_progress=on_progress, is_decided=is_decided
        )
        if not setups:
            return
        with closing(board):
            board.connect(on_leftovers)
            yield from measure_all(
                setups, rounds, timeout_s, on_progress=on_progress, place=board, is_decided=is_decided
            )
    except EdgeError as error:
        for setup in setups:
            yield Measurement(setup=setup, round=0, values=failure(error))


def _measure_by_trtexec(
    board: Board,
    setups: Sequence[Setup],
    rounds: int,
    timeout_s: float | None,
    *,
    on_progress: OnProgress | None,
    is_decided: IsDecided | None,
) -> Generator[Measurement, None, Sequence[Setup]]:
    """Measure TensorRT setups with trtexec if the board has no other way. Returns the remaining setups."""
    wanted = [setup for setup in setups if trtexec.is_wanted(setup)]
    if not wanted:
        return setups
    with board.line:
        found = probe(board.line)
        if not trtexec.is_needed(found):
            return setups
        yield from trtexec.measure_all(
            board.line, found, wanted, rounds, timeout_s, on_progress=on_progress, is_decided=is_decided
        )
    return [setup for setup in setups if setup not in wanted]


def boards_of(setups: Mapping[str, Sequence[Setup]], offline: bool, on_progress: OnProgress) -> dict[str, Board]:
    """Create a board for each host. Its messages are reported as progress of the host's first setup."""

    def board(host: str, first: Setup) -> Board:
        return Board(host, offline=offline, note=lambda text: on_progress(first, 0, text))

    return {host: board(host, group[0]) for host, group in setups.items()}


def distinct(hosts: Sequence[str]) -> list[str]:
    """Return the hosts in order. Raises UsageError if one is named twice: its measurements would disturb each other."""
    for host in hosts:
        if hosts.count(host) > 1:
            raise UsageError(f"{host} is named twice", "name each board once")
    return list(hosts)
