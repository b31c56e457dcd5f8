"""The parent side of worker processes: hand a job to a child, block until it answers.

The child side is `runtimes.worker`. The parent imports no engine and uses no CPU while it waits: it sleeps in
one read, and a timer that sleeps too ends the child when its time is up.

Where the worker runs is a `Place`: this machine, or a board at the other end of an ssh connection
(`edge.remote.board`). Whoever hands out jobs need not know which.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from edge.deadline import deadline
from runtimes.errors import EdgeError, EngineMissing, HostError, WorkerError, from_dict

OnProgress = Callable[[dict[str, Any]], None]

_GRACE_S = 5.0  # what an idle child gets to end by itself
_TAIL_BYTES = 8192  # of what the child printed: enough for the last words of any engine
_SIGKILL = 9
# How glog (TensorFlow, LiteRT), sanitizers and their headings draw a stack.
_FRAME = re.compile(r"@\s+(0x)?[0-9a-f]{4,}|#\d+\s|\*\*\*")
_TIME_HINT = "allow it more time, or choose a smaller model"
_MEMORY_HINT = "close other programs, or choose a smaller model or input"


class Crashed(WorkerError):  # noqa: N818 - what happened, as the rows of a benchmark say it
    """The worker process ended without an answer, or failed in a way that no engine's adapter foresaw."""


class TimedOut(WorkerError):  # noqa: N818 - what happened, as the rows of a benchmark say it
    """The worker process ran out of its time and was ended."""


class OutOfMemory(WorkerError):  # noqa: N818 - what happened, as the rows of a benchmark say it
    """The worker process ran out of memory."""


class Place(Protocol):
    """Where a worker runs; its files may be elsewhere than ours."""

    def command(self, module: str, job: Mapping[str, Any]) -> Sequence[str]:
        """The program that serves jobs on its stdin as `python -m module` does, for a worker whose first is `job`."""
        ...

    def heard(self, lines: Iterable[str]) -> Iterator[str]:
        """What that program says, of the lines on its stdout: others may speak before it."""
        ...

    def send(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The job as that place reads it: every file that it names is there, under the name that it has there."""
        ...

    def fetch(self, job: Mapping[str, Any]) -> None:
        """Bring what the job has written to where `job`, as it was before `send`, wants it."""
        ...

    def ended(self, status: int, job: Mapping[str, Any], words: str) -> EdgeError:
        """Why the program ended without an answer, by its exit status and what it printed last."""
        ...

    def kept(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is left of a job that failed, as part of its answer: the samples taken until then. Empty if nothing."""
        ...


class Here:
    """This machine."""

    def command(self, module: str, _job: Mapping[str, Any]) -> Sequence[str]:
        """This interpreter; -P: nothing in the current folder may pass for one of our modules."""
        return [sys.executable, "-P", "-m", module]

    def heard(self, lines: Iterable[str]) -> Iterator[str]:
        """All lines."""
        return iter(lines)

    def send(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The job as it is."""
        return dict(job)

    def fetch(self, job: Mapping[str, Any]) -> None:
        """Everything is here already."""

    def ended(self, status: int, job: Mapping[str, Any], words: str) -> EdgeError:
        """The process's own death."""
        return death(status, job, words)

    def kept(self, _job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing: a worker here ends with this program."""
        return {}


HERE = Here()


def run_job(
    job: Mapping[str, Any],
    *,
    module: str = "runtimes.worker",
    timeout_s: float | None,
    on_progress: OnProgress | None = None,
    place: Place = HERE,
) -> dict[str, Any]:
    """Run one job in a fresh process and return its answer; raises as `Worker.run` does."""
    with Worker(module, place) as worker:
        return worker.run(job, timeout_s=timeout_s, on_progress=on_progress)


class Worker:
    """A process that takes one job after another; started with the first, and again after a crash.

    `module` serves jobs with `runtimes.worker.serve`, at `place`. Not for several threads.
    """

    def __init__(self, module: str = "runtimes.worker", place: Place = HERE) -> None:
        self._module, self._place = module, place
        self._child: _Child | None = None

    def run(
        self, job: Mapping[str, Any], *, timeout_s: float | None, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """The answer to one job; `timeout_s` None waits for ever, `on_progress` is called with each progress object.

        Raises the EdgeError that the child answered, else Crashed, TimedOut or OutOfMemory, and HostError where the
        place is out of reach. The process and all that it started are gone after those, and after an exception from
        here, such as Ctrl+C.
        """
        sent = self._place.send(job)
        if self._child is None:
            self._child = _Child(self._place, self._module, sent)
        try:
            answer = self._child.ask(sent, timeout_s, on_progress)
        except (WorkerError, HostError):  # the process, or the line to it, is gone
            self._drop()
            raise
        except EdgeError:  # a plain refusal; the process is well
            raise
        except BaseException:
            self._drop()
            raise
        self._place.fetch(job)
        return answer

    def close(self) -> None:
        """Let the process end by itself, and make it end if it does not."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


class _Child:
    """One process, in a process group of its own so that all it starts can be ended with it."""

    def __init__(self, place: Place, module: str, job: Mapping[str, Any]) -> None:
        self._place = place
        # A file, not a pipe: nobody needs to read along for the child to go on.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self._process = subprocess.Popen(
            place.command(module, job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._heard = place.heard(self._stdout)

    def ask(self, job: Mapping[str, Any], timeout_s: float | None, on_progress: OnProgress | None) -> dict[str, Any]:
        """The answer to one job; the EdgeError that it is, or that stands for its absence."""
        with deadline(timeout_s, self._end_group) as out_of_time:
            self._send(job)
            answer = self._receive(on_progress)
        if out_of_time.is_set():
            error: EdgeError = TimedOut(f"{_doing(job)} ran out of its {timeout_s:g} s", _TIME_HINT)
        elif answer is None:
            self._end_group()
            error = self._place.ended(self._process.wait(), job, self._last_words())
        elif "died" in answer:  # said by `runtimes.agent`, who sees it where we cannot
            error = death(int(answer["died"]), job, str(answer.get("words", "")))
        elif "error" in answer:
            error = answered(answer, job)
        else:
            return answer
        if words := self._last_words():
            error.add_note(f"the worker printed:\n{words}")  # shown with --debug
        raise error

    def close(self) -> None:
        """Let the process end after its last job, then end whatever it left behind."""
        with deadline(_GRACE_S, self._end_group):
            _close_pipe(self._stdin)
            self._stdout.read()
        self.kill()

    def kill(self) -> None:
        """End the process group at once, and give back what it held here."""
        self._end_group()
        self._process.wait()
        _close_pipe(self._stdin)
        self._stdout.close()
        self._log.close()

    def _send(self, job: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # a process that is gone already says so when its answer is read
            self._stdin.write(json.dumps(dict(job)) + "\n")
            self._stdin.flush()

    def _receive(self, on_progress: OnProgress | None) -> dict[str, Any] | None:
        """The next answer, or None when the process ended before it or in the middle of it."""
        for line in self._heard:
            if not line.endswith("\n"):
                return None
            message: dict[str, Any] = json.loads(line)
            if set(message) != {"progress"}:
                return message
            if on_progress is not None:
                on_progress(message["progress"])
        return None

    def _end_group(self) -> None:
        # Until `wait` has collected the process, its number is not given to another: this cannot hit a stranger.
        if self._process.returncode is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses where only ended processes are left
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()


def _doing(job: Mapping[str, Any]) -> str:
    """What a worker was at, in words: "measure of mobilenet.onnx"."""
    subject = Path(str(job.get("artifact") or "")).name
    return f"'{job.get('job')}' of {subject}" if subject else f"'{job.get('job')}'"


def answered(answer: Mapping[str, Any], job: Mapping[str, Any]) -> EdgeError:
    """The error that the child answered; one of its own failings is told with what it was at."""
    message, hint, kind = answer.get("message", ""), answer.get("hint", ""), answer.get("kind")
    if kind == "MemoryError":
        return OutOfMemory(f"{_doing(job)} {message}", _MEMORY_HINT)
    if kind == EngineMissing.__name__:
        return EngineMissing(message, hint)
    if answer["error"] == WorkerError.branch:
        return Crashed(f"{_doing(job)} {message}", hint)
    return from_dict(dict(answer))


def death(status: int, job: Mapping[str, Any], words: str) -> WorkerError:
    """Why the process ended without an answer, as far as its exit status and its last words tell."""
    if status == -_SIGKILL or "std::bad_alloc" in words:
        # Nobody else kills workers with this signal: it is how Linux answers when memory runs out.
        return OutOfMemory(f"{_doing(job)} was ended by the system, which had no memory left", _MEMORY_HINT)
    how = f"crashed with {_signal_name(-status)}" if status < 0 else f"ended with status {status} and no answer"
    return Crashed(
        f"{_doing(job)} {how}{_last_line(words)}", "check the model with `edge inspect`, or try another engine"
    )


def _last_line(words: str) -> str:
    """The last line that is no frame of a stack: ": …", or nothing."""
    lines = [line.strip() for line in words.splitlines()]
    told = [line for line in lines if line and not _FRAME.match(line)]
    return f": {told[-1][:200]}" if told else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _close_pipe(pipe: IO[str]) -> None:
    with suppress(BrokenPipeError):  # what was left to write has no reader any more
        pipe.close()
