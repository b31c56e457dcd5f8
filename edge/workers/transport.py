"""Where a worker process runs: on this machine, or on a board over ssh (`edge.remote.board`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from edge.workers.failures import describe_job, error_from_exit
from runtimes.errors import EdgeError
from runtimes.jobs import J, Job
from runtimes.measurement.answer import MeasureAnswer


class Transport(Protocol):
    """A place where workers run; it may have another file system."""

    def command(self, module: str, job: Job[Any]) -> Sequence[str]:
        """Return the command of a worker that reads jobs from stdin like `python -m module`; `job` is its first job."""
        ...

    def filter_output(self, lines: Iterable[str]) -> Iterator[str]:
        """Return the worker's own lines from the command's stdout, which may start with output of other programs."""
        ...

    def upload(self, job: J) -> J:
        """Copy the job's input files to the place, and return the job with their paths there."""
        ...

    def download(self, job: Job[Any]) -> None:
        """Copy the job's output files to the paths in `job`, which is the job before `upload`."""
        ...

    def exit_error(self, status: int, job: Job[Any], words: str) -> EdgeError:
        """Explain why the command ended without an answer, from its exit status and last output."""
        ...

    def recovered(self, job: Job[Any]) -> MeasureAnswer:
        """Return the partial answer of a failed job: the samples taken before it failed. Empty if there are none."""
        ...

    def close(self) -> None:
        """Release the resources held at the place."""
        ...


class LocalTransport:
    """This machine."""

    def command(self, module: str, _job: Job[Any]) -> Sequence[str]:
        """Return a call of this interpreter; -P keeps files in the current folder from shadowing our modules."""
        return [sys.executable, "-P", "-m", module]

    def filter_output(self, lines: Iterable[str]) -> Iterator[str]:
        """Return all lines."""
        return iter(lines)

    def upload(self, job: J) -> J:
        """Return the job unchanged."""
        return job

    def download(self, job: Job[Any]) -> None:
        """Do nothing: the files are already on this machine."""

    def exit_error(self, status: int, job: Job[Any], words: str) -> EdgeError:
        """Explain the exit status of the process."""
        return error_from_exit(status, describe_job(job.name, job.subject), words)

    def recovered(self, _job: Job[Any]) -> MeasureAnswer:
        """Return an empty answer: a local worker leaves nothing behind."""
        return {}

    def close(self) -> None:
        """Do nothing: there are no resources to release."""


LOCAL = LocalTransport()
