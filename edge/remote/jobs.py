"""Measure on several boards: all at the same time, and on each board one measurement at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing

from edge.bench.harness import Measurement, OnProgress, Setup, failure, measure_all
from edge.remote import trtexec
from edge.remote.board import Board, Leftovers
from edge.remote.kept import save
from edge.remote.survey import survey
from runtimes.errors import EdgeError, UsageError


def measure_on(
    boards: Mapping[str, Board],
    setups: Mapping[str, Sequence[Setup]],
    rounds: int = 2,
    timeout_s: float | None = 300.0,
    on_progress: OnProgress | None = None,
    on_leftovers: Leftovers = save,
) -> Iterator[Measurement]:
    """Measure `setups` of each host on its board, and yield each measurement as soon as it is there.

    A board that cannot be reached is a failed measurement of each of its setups; the others go on. `on_leftovers` is
    as `Board.connect` takes it. When the iteration is left, such as by Ctrl+C, the lines are cut, and the boards end
    what they do.
    """
    found: queue.Queue[Measurement | BaseException | None] = queue.Queue()

    def tell(host: str) -> None:
        try:
            for measurement in _on_one(boards[host], setups[host], rounds, timeout_s, on_progress, on_leftovers):
                found.put(measurement)
            found.put(None)
        except BaseException as error:  # a mistake of ours: raised where somebody sees it
            found.put(error)

    threads = [threading.Thread(target=tell, args=(host,), daemon=True) for host in setups]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            one = found.get()
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
    on_progress: OnProgress | None,
    on_leftovers: Leftovers,
) -> Iterator[Measurement]:
    try:
        setups = yield from _by_trtexec(board, setups, rounds, timeout_s, on_progress)
        if not setups:
            return
        with closing(board):
            board.connect(on_leftovers)
            yield from measure_all(setups, rounds, timeout_s, on_progress, place=board)
    except EdgeError as error:
        for setup in setups:
            yield Measurement(setup, 0, failure(error))


def _by_trtexec(
    board: Board, setups: Sequence[Setup], rounds: int, timeout_s: float | None, on_progress: OnProgress | None
) -> Generator[Measurement, None, Sequence[Setup]]:
    """Measure those for TensorRT by trtexec, where the board has no other way; the setups that are left."""
    wanted = [setup for setup in setups if trtexec.is_wanted(setup)]
    if not wanted:
        return setups
    with board.line:
        found = survey(board.line)
        if not trtexec.is_needed(found):
            return setups
        yield from trtexec.measure_all(board.line, found, wanted, rounds, timeout_s, on_progress)
    return [setup for setup in setups if setup not in wanted]


def boards_of(setups: Mapping[str, Sequence[Setup]], offline: bool, hear: OnProgress) -> dict[str, Board]:
    """A board for each host, which tells what it does as the progress of that host's first setup."""

    def board(host: str, first: Setup) -> Board:
        return Board(host, offline=offline, note=lambda text: hear(first, 0, text))

    return {host: board(host, group[0]) for host, group in setups.items()}


def distinct(hosts: Sequence[str]) -> list[str]:
    """The hosts in their order; UsageError for one that is named twice, which would measure it against itself."""
    for host in hosts:
        if hosts.count(host) > 1:
            raise UsageError(f"{host} is named twice", "name each board once")
    return list(hosts)
