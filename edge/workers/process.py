"""The parent side of worker processes: send a job to a child process and block until it answers.

The child side is `runtimes.worker`. The parent imports no engine and uses no CPU while it waits: it blocks in a
single read, and a timer kills the child when the time limit is reached.

A `Transport` determines where the worker runs: on this machine, or on a board over ssh (`edge.remote.board`). Callers
need not know which.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from edge.console import progress as console
from edge.workers.failures import TIME_HINT, describe_job, error_from_answer, error_from_exit
from edge.workers.transport import LOCAL, Transport
from runtimes import child_process
from runtimes.artifact.json_fields import Fields
from runtimes.child_process import deadline, last_words
from runtimes.errors import EdgeError, HostError, WorkerError, WorkerTimeoutError
from runtimes.jobs import Job, Progress, R

OnProgress = Callable[[Progress], None]


def step_progress(on_progress: console.OnProgress, total: int) -> OnProgress:
    """Return a callback that converts a worker's progress (`doing`, `done`) to events of `total` steps."""

    def forward(progress: Progress) -> None:
        event = console.ProgressEvent(text=progress["doing"], done=progress["done"], total=total)
        on_progress(event)

    return forward


_HINT = "both sides must run the same version of edge: update the older one"
_GRACE_S = 5.0  # how long an idle child may take to exit by itself


def run_job(
    job: Job[R],
    *,
    module: str = "runtimes.worker",
    timeout_s: float | None,
    on_progress: OnProgress | None = None,
    place: Transport = LOCAL,
) -> R:
    """Run one job in a new process and return its answer. Raises the same errors as `Worker.run`."""
    with Worker(module, place) as worker:
        return worker.run(job, timeout_s=timeout_s, on_progress=on_progress)


class Worker:
    """A process that runs one job after another; started with the first job, and restarted after a crash.

    module: The module that serves the jobs (`runtimes.job_server.serve`).
    place: Where the process runs.

    Not thread-safe.
    """

    def __init__(self, module: str = "runtimes.worker", place: Transport = LOCAL) -> None:
        self._module, self._place = module, place
        self._child: _Child | None = None

    def run(self, job: Job[R], *, timeout_s: float | None, on_progress: OnProgress | None = None) -> R:
        """Run one job and return its answer.

        timeout_s: The time limit; None waits forever.
        on_progress: Called with each progress object.

        Raises the EdgeError that the child answered with; WorkerCrashedError, WorkerTimeoutError or
        WorkerOutOfMemoryError if it did not answer; HostError if the place cannot be reached. The process and its
        children are killed on all but the first, and on any other exception, such as Ctrl+C.
        """
        sent = self._place.upload(job)
        if self._child is None:
            self._child = _Child(self._place, self._module, sent)
        try:
            answer = self._child.ask(sent, timeout_s, on_progress)
        except (WorkerError, HostError):  # the process, or the connection to it, is gone
            self._drop()
            raise
        except EdgeError:  # an ordinary error answer: the process can take the next job
            raise
        except BaseException:
            self._drop()
            raise
        self._place.download(job)
        return job.answer_from_json(answer)

    def close(self) -> None:
        """Let the process exit, and kill it if it does not."""
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
    """One process in its own process group, so that its children can be killed with it.

    It has a temporary folder of its own, so that nothing stays there if it is killed.
    """

    def __init__(self, place: Transport, module: str, job: Job[Any]) -> None:
        self._place = place
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self._folder = tempfile.TemporaryDirectory(prefix="edge-worker-", ignore_cleanup_errors=True)
        temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name)
        self._process = child_process.start_text(place.command(module, job), self._log, temporary)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._output = place.filter_output(self._stdout)

    def ask(self, job: Job[Any], timeout_s: float | None, on_progress: OnProgress | None) -> Fields:
        """Return the answer to one job. Raises the EdgeError it contains, or one that explains why it is missing."""
        with deadline(timeout_s, self._end_group) as out_of_time:
            self._send(job)
            answer = self._receive(on_progress)
        what = describe_job(job.name, job.subject)
        if out_of_time.is_set():
            error: EdgeError = WorkerTimeoutError(f"{what} exceeded its time limit of {timeout_s:g} s", TIME_HINT)
        elif answer is None:
            self._end_group()
            error = self._place.exit_error(self._process.wait(), job, last_words(self._log))
        elif answer.has("died"):  # sent by `runtimes.board.agent`, because the exit status is not visible here
            error = error_from_exit(answer.integer("died"), what, answer.optional_text("words") or "")
        elif answer.has("error"):
            error = error_from_answer(answer.values, what)
        else:
            return answer
        if words := last_words(self._log):
            error.add_note(f"the worker printed:\n{words}")  # shown with --debug
        raise error

    def close(self) -> None:
        """Let the process exit after its last job, then kill any children that it left behind."""
        with deadline(_GRACE_S, self._end_group):
            _close_pipe(self._stdin)
            self._stdout.read()
        self.kill()

    def kill(self) -> None:
        """Kill the process group immediately, and release its pipes, log file and temporary folder."""
        self._end_group()
        self._process.wait()
        _close_pipe(self._stdin)
        self._stdout.close()
        self._log.close()
        self._folder.cleanup()

    def _send(self, job: Job[Any]) -> None:
        with suppress(BrokenPipeError):  # reading the answer reports a process that has already ended
            self._stdin.write(json.dumps(job.to_json()) + "\n")
            self._stdin.flush()

    def _receive(self, on_progress: OnProgress | None) -> Fields | None:
        """Return the next answer, or None if the process ended before its answer was complete."""
        for line in self._output:
            if not line.endswith("\n"):
                return None
            message = Fields(json.loads(line), "the worker's answer", hint=_HINT, error=WorkerError)
            if set(message.values) != {"progress"}:
                return message
            if on_progress is not None:
                on_progress(message.value("progress"))
        return None

    def _end_group(self) -> None:
        child_process.end(self._process)


def _close_pipe(pipe: IO[str]) -> None:
    with suppress(BrokenPipeError):  # buffered data can no longer be delivered
        pipe.close()
