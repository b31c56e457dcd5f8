"""The agent that runs on a board during a connection. `edge.remote.board` is the other side.

    hold ROOT SESSION           one per connection: holds the board's lock, so that two people never measure at the same
                                time, and kills the session's remaining workers at the end
    work MODULE ROOT SESSION    one per worker: forwards jobs to it, and reports how it died
    kept ROOT SESSION           lists on stdout what interrupted sessions have left behind
    left ROOT SESSION NAME      prints what one measurement has left behind

Failures of the board's system, such as a full disk, are answered as errors in the form of `runtimes.errors`.

sshd keeps a program running after its client has gone. These programs exit at the end of their stdin; `hold_lock` also
exits when its client has been silent for too long, because a network failure may never deliver the end of stdin.

    ROOT/kept/SESSION/NAME/     one measurement, see `runtimes.measurement.sample_journal`
    ROOT/kept/SESSION/workers/  one file per running worker, named by its process group

POSIX only: boards run Linux.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, TypedDict

from runtimes.child_process import end_group, last_words, start
from runtimes.errors import HostError

if TYPE_CHECKING:  # they import numpy; a board without numpy can still be locked and inspected
    from runtimes.artifact.json_fields import JsonObject
    from runtimes.measurement.answer import MeasureAnswer

SILENCE_S = 60.0  # the client sends a line every 10 s
_WORKERS = "workers"


def hold_lock(root: Path, session: str, silence_s: float = SILENCE_S) -> None:
    """Wait for the lock, print {"held": true}, and hold the lock until the client disconnects.

    Each line of stdin is a heartbeat, or the name of a measurement that has arrived and can be deleted.
    """
    import fcntl

    folder = root / "kept" / session
    (folder / _WORKERS).mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        lines = _lines(silence_s)
        try:
            while not _try_lock(fcntl, lock):
                _say({"waiting": True})
                if next(lines, None) is None:  # retry at the next heartbeat
                    return
            _say({"held": True})
            for name in lines:
                if name:
                    shutil.rmtree(str(folder / Path(name).name), ignore_errors=True)
        finally:
            _end_session(folder)


def _try_lock(fcntl: Any, lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lines(silence_s: float) -> Iterator[str]:
    """Yield the lines of stdin until it closes or no line has arrived for too long."""
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], silence_s)
        piece = os.read(0, 4096) if ready else b""
        if not piece:
            return
        *lines, buffer = (buffer + piece).split(b"\n")
        yield from (line.decode("utf-8", "replace").strip() for line in lines)


def _end_session(folder: Path) -> None:
    for mark in (folder / _WORKERS).glob("*"):
        end_group(int(mark.name))
    shutil.rmtree(folder / _WORKERS, ignore_errors=True)
    shutil.rmtree(folder / "files", ignore_errors=True)
    try:
        folder.rmdir()  # succeeds only if nothing is left to be fetched
    except OSError:
        return


def run_worker(module: str, root: Path, session: str) -> None:
    """Run `python -m module` as a worker. If it dies, print {"died": exit status, "words": the end of its log}."""
    marks = root / "kept" / session / _WORKERS
    marks.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        child = start([sys.executable, "-m", module], log)
        mark = marks / str(child.pid)
        mark.touch()
        try:
            _Relay(child, log).run()
        finally:
            end_group(child.pid)  # including processes that an exited child has left behind
            child.wait()
            with suppress(FileNotFoundError):
                mark.unlink()


class RecoveredSamples(TypedDict):
    """What an interrupted measurement has left behind, and where."""

    session: str
    name: str
    job: JsonObject
    values: MeasureAnswer


class _Relay:
    """Relays our stdin to the child's stdin, and its stdout to ours."""

    def __init__(self, child: subprocess.Popen[bytes], log: Any) -> None:
        self._child, self._log = child, log
        self._asked = self._answered = 0
        self._left = False

    def run(self) -> None:
        """Relay until the child exits, on its own or because the client has disconnected."""
        threading.Thread(target=self._pass_jobs, daemon=True).start()
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if not line.startswith(b'{"progress"'):
                self._answered += 1
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        status = self._child.wait()
        if not self._left:
            _say({"died": status, "words": last_words(self._log)})

    def _pass_jobs(self) -> None:
        assert self._child.stdin is not None
        # Not sys.stdin: Python could not exit while this thread holds its lock.
        while True:
            piece = os.read(0, 2**16)
            if not piece:
                break
            self._asked += piece.count(b"\n")
            try:
                self._child.stdin.write(piece)
                self._child.stdin.flush()
            except BrokenPipeError:
                return
        self._left = True
        if self._asked != self._answered:  # the client disconnected during a job: do not wait for it
            end_group(self._child.pid)
        else:
            self._child.stdin.close()


def list_recovered(root: Path, session: str) -> list[RecoveredSamples]:
    """Return what other sessions have left behind. They are over, because this one holds the lock.

    [{"session", "name", "job", "values"}]; the folder of a session that has left nothing is removed.
    """
    samples = []
    for other in sorted((root / "kept").glob("*")):
        if other.name == session:
            continue
        left = [what for folder in sorted(other.glob("*")) for what in recovered(other, folder.name)]
        if not left:
            shutil.rmtree(other, ignore_errors=True)
        samples += left
    return samples


def recovered(session: Path, name: str) -> list[RecoveredSamples]:
    """Return [{"session", "name", "job", "values"}] of one measurement; empty if it left nothing."""
    from runtimes.measurement.sample_journal import recover

    what = recover(session / name)
    return (
        [{"session": session.name, "name": name, "job": what["job"], "values": what["values"]}]
        if what is not None
        else []
    )


def _say(answer: object) -> None:
    with suppress(OSError):  # the client has disconnected
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Run the command line."""
    # sshd sends this signal when the connection ends; exit through the clean-up code.
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _run_command(*arguments)
    except OSError as error:
        hint = "make room on the board's disk" if error.errno == errno.ENOSPC else "check its disk and its permissions"
        _say(HostError(f"the board's system reports: {error}", hint).as_dict())
        sys.exit(1)


def _run_command(task: str, *rest: str) -> None:
    if task == "hold":
        hold_lock(Path(rest[0]), rest[1], *map(float, rest[2:]))
    elif task == "work":
        run_worker(rest[0], Path(rest[1]), rest[2])
    elif task == "left":
        _say({"kept": recovered(Path(rest[0]) / "kept" / rest[1], rest[2])})
    else:
        _say({"kept": list_recovered(Path(rest[0]), rest[1])})


if __name__ == "__main__":
    main(sys.argv[1:])
