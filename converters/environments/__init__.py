"""Separate environments for libraries whose pins conflict with others, or that only run on old Pythons.

    converters/environments/<name>/requirements.txt   hashed pins; its first lines name the Python and the machines
    converters/environments/<name>/job.py             the code that runs inside: `run(job) -> answer`, both plain JSON

The first lines of requirements.txt may also contain:

    # Python: host              the Python that runs this project, instead of an older one
    # Shared: torch ...         packages that are too large to install twice; taken from this Python's environment
    # Source: NAME==VERSION --hash=...    a source package that is unpacked into the folder `source`, and not built
    # Unpack: FOLDER/ PREFIX ...          the part to unpack: paths inside FOLDER/ that begin with one of the prefixes

An environment is created once, in the user's cache folder, and needs no network afterwards; the user's own Python
environment is never changed. Its folder's name contains the digest of the pins, so new pins create a new environment.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.environments.create import make
from converters.environments.definition import Definition, Report
from converters.environments.process import job_process
from converters.library_calls import useful_text
from runtimes.errors import EngineError, InputError, WorkerError

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonValue

_HERE = Path(__file__).parent
_SIGKILL = 9


@dataclass(frozen=True)
class Environment(Definition):
    """An environment that can be created on this machine, and that runs its job."""

    def create(self, pythons: Sequence[Path] = (), report: Report | None = None) -> None:
        """Create it unless it exists; `pythons` are tried before the interpreters found on this machine.

        Raises HostError if that is impossible: no such Python, the wrong kind of machine, no network.
        """
        self.check_machine()
        if not self.python.exists():
            make(self, pythons, report or (lambda _text: None))

    def run(self, job: Mapping[str, JsonValue], timeout_s: float | None, subject: str, hint: str) -> dict[str, Any]:
        """Run `job.py` in the environment and return its answer to `job`. Creates the environment if needed.

        Paths in the job must be absolute, because it runs in a new folder. An exception of the job becomes an
        EngineError about `subject` ("onnx2tf failed on m.onnx") with `hint`, a ValueError an InputError. Raises
        WorkerError if the process crashes or exceeds `timeout_s`.
        """
        self.create()
        with tempfile.TemporaryDirectory(prefix="edge-") as folder, job_process(self) as process:
            try:
                reply = process.ask(Path(folder), job, timeout_s)
            except subprocess.TimeoutExpired:
                raise WorkerError(f"{subject}: it exceeded {timeout_s:g} s", "choose a smaller model") from None
            if "status" in reply:
                raise _exit_error(subject, reply["status"], process.last_words)
            if "error" in reply:
                sys.stderr.write(f"{process.last_words}\n")  # shown with --debug
        if "answer" in reply:
            return reply["answer"]
        kind = InputError if reply["kind"] == "ValueError" else EngineError
        raise kind(f"{subject}: {useful_text(reply['error']) or reply['kind']}", hint)


def environment(name: str) -> Environment:
    """Return the environment in the folder `name` of this package."""
    return Environment(_HERE / name / "requirements.txt")


def _exit_error(subject: str, status: int, output: str) -> WorkerError:
    if status == -_SIGKILL:
        return WorkerError(f"{subject}: it was killed by the system, which ran out of memory", "close other programs")
    how = f"it crashed with signal {-status}" if status < 0 else f"it exited with status {status} and no answer"
    last = f": {useful_text(output.splitlines()[-1])}" if output else ""
    return WorkerError(f"{subject}: {how}{last}", "check the model with `edge inspect`")
