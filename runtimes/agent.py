"""What runs on a board for as long as somebody is connected, and not longer. `edge.remote.board` is the other side.

    hold ROOT SESSION           one for each connection: takes the board's lock, so that two people never measure at the
                                same time, and ends what is left of the session when it ends
    work MODULE ROOT SESSION    one for each worker: passes jobs on to it, and tells how it died
    kept ROOT SESSION           what other sessions have left, which broke off: a list on stdout
    left ROOT SESSION NAME      what one measurement has left

What the board's system refuses them, such as room on its disk, is their answer: an error as `runtimes.errors` has them.

ssh's server leaves a program running whose client is gone. These end by the end of their stdin, and `hold` also when
its client has been silent for too long: a line that was cut in the middle never brings that end.

    ROOT/kept/SESSION/NAME/     one measurement, see `runtimes.keep`
    ROOT/kept/SESSION/workers/  one file for each running worker, named by its process group
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
from typing import Any, Iterator

from runtimes.errors import HostError

SILENCE_S = 60.0  # of a client that says something every 10 s
_TAIL = 8192
_WORKERS = "workers"


def hold(root: Path, session: str, silence_s: float = SILENCE_S) -> None:
    """Wait for the lock, say {"held": true}, and keep it until the client leaves.

    Each line of stdin is a sign of life, or the name of a measurement that has arrived and need not be kept.
    """
    import fcntl

    folder = root / "kept" / session
    (folder / _WORKERS).mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        lines = _lines(silence_s)
        try:
            while not _taken(fcntl, lock):
                _say({"waiting": True})
                if next(lines, None) is None:  # the next sign of life is a good time to look again
                    return
            _say({"held": True})
            for name in lines:
                if name:
                    shutil.rmtree(str(folder / Path(name).name), ignore_errors=True)
        finally:
            _end_session(folder)


def _taken(fcntl: Any, lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lines(silence_s: float) -> Iterator[str]:
    """The lines of stdin; ends with it, or when none has come for so long."""
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
        _kill(int(mark.name))
    shutil.rmtree(folder / _WORKERS, ignore_errors=True)
    shutil.rmtree(folder / "files", ignore_errors=True)
    try:
        folder.rmdir()  # where nothing is left to be fetched
    except OSError:
        return


def work(module: str, root: Path, session: str) -> None:
    """Serve as `python -m module` does. Where that dies, say {"died": its exit status, "words": its last}."""
    marks = root / "kept" / session / _WORKERS
    marks.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        mark = marks / str(child.pid)
        mark.touch()
        try:
            _Relay(child, log).run()
        finally:
            _kill(child.pid)
            child.wait()
            with suppress(FileNotFoundError):
                mark.unlink()


class _Relay:
    """Our stdin to the child's, its stdout to ours."""

    def __init__(self, child: subprocess.Popen[bytes], log: Any) -> None:
        self._child, self._log = child, log
        self._asked = self._answered = 0
        self._left = False

    def run(self) -> None:
        """Until the child ends, which it does by itself, or because the client has left."""
        threading.Thread(target=self._pass_jobs, daemon=True).start()
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if not line.startswith(b'{"progress"'):
                self._answered += 1
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        status = self._child.wait()
        if not self._left:
            _say({"died": status, "words": self._last_words()})

    def _pass_jobs(self) -> None:
        assert self._child.stdin is not None
        # Not through sys.stdin: Python could not end while this thread holds its lock.
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
        if self._asked != self._answered:  # whoever leaves in the middle of a job does not wait for its end
            _kill(self._child.pid)
        else:
            self._child.stdin.close()

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL))
        words: str = self._log.read().decode("utf-8", "replace").strip()
        return words


def kept(root: Path, session: str) -> list[dict[str, Any]]:
    """What other sessions have left, which are over where this one holds the lock.

    [{"session", "name", "job", "values"}]; a session that has left nothing is removed.
    """
    found = []
    for other in sorted((root / "kept").glob("*")):
        if other.name == session:
            continue
        told = [what for folder in sorted(other.glob("*")) for what in left(other, folder.name)]
        if not told:
            shutil.rmtree(other, ignore_errors=True)
        found += told
    return found


def left(session: Path, name: str) -> list[dict[str, Any]]:
    """[{"session", "name", "job", "values"}] of one measurement; empty where it left nothing."""
    from runtimes.keep import recover

    what = recover(session / name)
    return [{"session": session.name, "name": name, **what}] if what is not None else []


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _say(answer: dict[str, Any]) -> None:
    with suppress(OSError):  # nobody listens any more
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    # A session that ssh's server ends gets this signal; what is to be cleaned up is cleaned up.
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _do(*arguments)
    except OSError as error:
        hint = "make room on the board's disk" if error.errno == errno.ENOSPC else "check its disk and its permissions"
        _say(HostError(f"the board's system refuses: {error}", hint).as_dict())
        sys.exit(1)


def _do(task: str, *rest: str) -> None:
    if task == "hold":
        hold(Path(rest[0]), rest[1], *map(float, rest[2:]))
    elif task == "work":
        work(rest[0], Path(rest[1]), rest[2])
    elif task == "left":
        _say({"kept": left(Path(rest[0]) / "kept" / rest[1], rest[2])})
    else:
        _say({"kept": kept(Path(rest[0]), rest[1])})


if __name__ == "__main__":
    main(sys.argv[1:])
