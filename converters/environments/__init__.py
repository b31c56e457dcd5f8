"""Environments of their own for libraries whose pins clash with everybody else's, or that only old Pythons run.

    converters/environments/<name>/requirements.txt   hashed pins; its first lines name the Python and the machines
    converters/environments/<name>/job.py             what runs inside: `run(job) -> answer`, both plain JSON

An environment is made once, in the user's cache folder, and needs no network afterwards; the user's own Python
environment is never touched. Its folder's name holds the digest of the pins, so that new pins make a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from converters.quiet import useful_text
from runtimes.cache import cache_folder
from runtimes.errors import EngineError, HostError, InputError, WorkerError

Report = Callable[[str], None]

_HERE = Path(__file__).parent
_SIGKILL = 9
_TAIL_BYTES = 8192  # of what a job printed: enough for the last words of any library
# What would lead the environment's Python or pip elsewhere; how pip reaches its index stays the user's choice.
_FOREIGN = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Environment:
    """One folder of this package: the requirements, and the job that runs inside."""

    requirements: Path

    @property
    def name(self) -> str:
        """Its word, such as `onnx2tf`."""
        return self.requirements.parent.name

    @property
    def python_version(self) -> str:
        """The Python that the pins are for, such as "3.8"."""
        return self._header("Python")

    @property
    def folder(self) -> Path:
        """Where it is, or will be made."""
        return cache_folder() / "environments" / f"{self.name}-{self.digest}"

    @property
    def digest(self) -> str:
        """Twelve characters that stand for the pins, on this kind of machine."""
        text = self.requirements.read_bytes() + _machine().encode()
        return hashlib.sha256(text).hexdigest()[:12]

    @property
    def python(self) -> Path:
        """Its interpreter; the file exists when the environment was made."""
        return interpreter(self.folder)

    @property
    def described(self) -> str:
        """One line for a plan: what it is, and whether it is there."""
        state = f"in {self.folder}" if self.python.exists() else "made first, once, which needs the network"
        return f"runs in the environment '{self.name}' (Python {self.python_version}), {state}"

    def create(self, pythons: Sequence[Path] = (), report: Report | None = None) -> None:
        """Make it unless it is there; `pythons` are looked at before those that this machine has.

        HostError where the machine cannot have it: no such Python, the wrong kind of machine, no network.
        """
        from converters.environments.making import make

        self.check_machine()
        if not self.python.exists():
            make(self, pythons, report or (lambda _text: None))

    def check_machine(self) -> None:
        """HostError when its packages do not exist for this kind of machine."""
        machines = [name.strip() for name in self._header("Machines").split(",")]
        if _machine() not in machines:
            what = f"the environment '{self.name}' exists for {', '.join(machines)} only; this is {_machine()}"
            raise HostError(what, "convert on such a machine, and copy the artifact")

    def run(self, job: Mapping[str, Any], timeout_s: float, subject: str, hint: str) -> dict[str, Any]:
        """The answer of `job.py` to `job`, run inside the environment, which is made if it is not there yet.

        Paths in the job must be absolute: it runs in a fresh folder. What the job raises becomes an EngineError about
        `subject` ("onnx2tf failed on m.onnx") with `hint`, a ValueError an InputError; WorkerError when it crashes or
        runs out of its time.
        """
        self.create()
        with tempfile.TemporaryDirectory(prefix="edge-") as folder, tempfile.TemporaryFile() as log:
            answer = self._ask(json.dumps(dict(job)), timeout_s, Path(folder), log, subject)
        if "answer" in answer:
            return dict(answer["answer"])
        kind = InputError if answer["kind"] == "ValueError" else EngineError
        raise kind(f"{subject}: {useful_text(answer['error']) or answer['kind']}", hint)

    def _ask(self, job: str, timeout_s: float, folder: Path, log: IO[bytes], subject: str) -> dict[str, Any]:
        command = [str(self.python), "-u", str(_HERE / "child.py"), str(self.requirements.parent / "job.py")]
        # Its parent's process group: who ends the worker ends this as well.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=clean_variables(), cwd=folder
        ) as process:
            try:
                out, _ = process.communicate(job.encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise WorkerError(f"{subject}: it ran out of its {timeout_s:g} s", "choose a smaller model") from None
            finally:
                process.kill()
        if process.returncode != 0 or not out:
            raise _death(subject, process.returncode, _last_words(log))
        answer: dict[str, Any] = json.loads(out)
        return answer

    def _header(self, key: str) -> str:
        found = re.search(rf"^# {key}: (.+)$", self.requirements.read_text(encoding="utf-8"), re.MULTILINE)
        assert found is not None, f"{self.requirements} does not name its {key}"
        return found[1]


def environment(name: str) -> Environment:
    """The environment in the folder `name` of this package."""
    return Environment(_HERE / name / "requirements.txt")


def interpreter(folder: Path) -> Path:
    """The Python of the virtual environment in `folder`."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def clean_variables() -> dict[str, str]:
    """This process's variables without those that lead a Python or pip elsewhere; sets are ordered alike each time."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key not in _FOREIGN}
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


def _machine() -> str:
    """This machine as requirement files name it: "linux x86_64"."""
    return f"{sys.platform} {platform.machine().lower()}"


def _death(subject: str, status: int, words: str) -> WorkerError:
    if status == -_SIGKILL:
        return WorkerError(f"{subject}: the system ended it, having no memory left", "close other programs")
    how = f"it crashed with signal {-status}" if status < 0 else f"it ended with status {status} and no answer"
    last = f": {useful_text(words.splitlines()[-1])}" if words else ""
    return WorkerError(f"{subject}: {how}{last}", "check the model with `edge inspect`")


def _last_words(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL_BYTES))
    return log.read().decode("utf-8", "replace").strip()
