"""The process inside an environment that runs its jobs, see `runner.py`: one for each job, or one kept for several.

Only POSIX can fork, so only there processes are kept.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from converters.environments.definition import Definition, clean_variables
from runtimes.child_process import last_words
from runtimes.errors import HostError

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonValue

_RUNNER = Path(__file__).with_name("runner.py")
_kept: dict[Path, JobProcess] | None = None


class Reply(TypedDict, total=False):
    """The output of runner.py: an answer, or an error and the name of its class, or a crash: its exit status."""

    answer: dict[str, Any]
    error: str
    kind: str
    status: int


class JobProcess:
    """A process that answers jobs; `log` has what it printed during the last one."""

    def __init__(self, environment: Definition, *, is_kept: bool = False) -> None:
        self._is_kept, self._left = is_kept, ExitStack()
        self._log = self._left.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the rest
        shared = Path(self._left.enter_context(tempfile.TemporaryDirectory(prefix="edge-shared-")))
        _share(environment, shared)
        command = [str(environment.python), "-u", str(_RUNNER), str(environment.requirements.parent / "job.py")]
        # It stays in the process group of its parent, so it ends with the worker.
        self._process = subprocess.Popen(
            [*command, *(["--keep"] if is_kept else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**clean_variables(), **({"PYTHONPATH": str(shared)} if environment.shared else {})},
        )

    def ask(self, folder: Path, job: Mapping[str, JsonValue], timeout_s: float | None) -> Reply:
        """Run a job with `folder` as its current one. Raises subprocess.TimeoutExpired."""
        self._log.seek(0)  # the process writes where we are
        self._log.truncate()
        line = f"{json.dumps({'folder': str(folder), 'job': dict(job)})}\n".encode()
        out = self._next_line(line, timeout_s) if self._is_kept else self._process.communicate(line, timeout_s)[0]
        reply: Reply = json.loads(out) if out else {"status": self._process.wait()}
        return reply

    def _next_line(self, line: bytes, timeout_s: float | None) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with suppress(BrokenPipeError):  # it was killed, and stdout is at its end
            stdin.write(line)
            stdin.flush()
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise subprocess.TimeoutExpired(self._process.args, timeout_s or 0.0)
        return stdout.readline()

    @property
    def last_words(self) -> str:
        """The end of what the last job printed."""
        return last_words(self._log)

    def close(self) -> None:
        """End it, and the job that it runs."""
        self._process.terminate()
        self._process.wait()
        with suppress(BrokenPipeError), self._process:
            self._left.close()


@contextmanager
def kept_processes() -> Iterator[None]:
    """Keep the processes that are started inside until the end, where the system can fork them.

    What their jobs import is then imported once: a conversion with a repair runs several jobs.
    """
    global _kept
    if _kept is not None or not hasattr(os, "fork"):
        yield
        return
    _kept = {}
    try:
        yield
    finally:
        for process in _kept.values():
            process.close()
        _kept = None


@contextmanager
def job_process(environment: Definition) -> Iterator[JobProcess]:
    """Start a process for one job, or take one that is kept."""
    if _kept is None:
        process = JobProcess(environment)
        try:
            yield process
        finally:
            process.close()
        return
    if environment.folder not in _kept:
        _kept[environment.folder] = JobProcess(environment, is_kept=True)
    process = _kept[environment.folder]
    try:
        yield process
    except BaseException:  # the job crashed, ran out of time, or was interrupted
        del _kept[environment.folder]
        process.close()
        raise


def _share(environment: Definition, folder: Path) -> None:
    """Link the shared packages and their metadata into `folder`.

    The rest of the host's environment is not shared, because its versions differ from the pins.
    """
    for name in environment.shared:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            hint = (
                f"install it in edge's environment: pip install {environment.shared[0]} (a build for the CPU is enough)"
            )
            raise HostError(f"the environment '{environment.name}' shares {name}, which is not installed here", hint)
        package = Path(next(iter(spec.submodule_search_locations)))
        (folder / name).symlink_to(package)
        for facts in package.parent.glob(f"{name}-*.dist-info"):
            (folder / facts.name).symlink_to(facts)
