"""The definition of an environment: its pins, their Python and machines, and its folder."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import HostError
from runtimes.host.files import cache_folder

Report = Callable[[str], None]

# Variables that would redirect the environment's Python or pip; those that configure pip's index are kept.
_FOREIGN = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "VIRTUAL_ENV")


@dataclass(frozen=True, kw_only=True)
class SourcePackage:
    """A source package.

    Attributes:
        pin: Its line for pip, with the hash.
        folder: The folder inside it that is unpacked.
        prefixes: The paths of that folder to unpack: all that begin with one of these.
    """

    pin: str
    folder: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """An environment as defined by its requirements.txt."""

    requirements: Path

    @property
    def name(self) -> str:
        """Its name, such as `onnx2tf`."""
        return self.requirements.parent.name

    @property
    def python_version(self) -> str:
        """The Python that the pins are for, such as "3.8"."""
        version = self._header("Python")
        return "{}.{}".format(*sys.version_info[:2]) if version == "host" else version

    @property
    def shared(self) -> tuple[str, ...]:
        """The packages that its jobs use from this Python's own environment."""
        return tuple(self._header("Shared", "").split())

    @property
    def source(self) -> SourcePackage | None:
        """The source package that is unpacked in it; None if there is none."""
        pin, unpack = self._header("Source", ""), self._header("Unpack", "").split()
        return SourcePackage(pin=pin, folder=unpack[0], prefixes=tuple(unpack[1:])) if pin else None

    @property
    def folder(self) -> Path:
        """Its folder, which need not exist yet."""
        return cache_folder() / "environments" / f"{self.name}-{self.digest}"

    @property
    def digest(self) -> str:
        """A digest of the pins and the kind of machine, of twelve characters."""
        text = self.requirements.read_bytes() + _machine().encode()
        if self._header("Python") == "host":  # each Python has its own folder
            text += self.python_version.encode()
        return hashlib.sha256(text).hexdigest()[:12]

    @property
    def python(self) -> Path:
        """Its interpreter; the file exists if the environment was created."""
        return interpreter(self.folder)

    @property
    def described(self) -> str:
        """One line for a plan: the environment, and whether it exists."""
        state = f"in {self.folder}" if self.python.exists() else "created first, once, which needs the network"
        return f"runs in the environment '{self.name}' (Python {self.python_version}), {state}"

    def check_machine(self) -> None:
        """Raise HostError if its packages do not exist for this kind of machine."""
        machines = [name.strip() for name in self._header("Machines").split(",")]
        if _machine() not in machines:
            what = f"the environment '{self.name}' exists for {', '.join(machines)} only; this is {_machine()}"
            raise HostError(what, "convert on such a machine, and copy the artifact")

    def _header(self, key: str, default: str | None = None) -> str:
        match = re.search(rf"^# {key}: (.+)$", self.requirements.read_text(encoding="utf-8"), re.MULTILINE)
        value = match[1] if match else default
        assert value is not None, f"{self.requirements} does not name its {key}"
        return value


def interpreter(folder: Path) -> Path:
    """Return the Python of the virtual environment in `folder`."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def clean_variables() -> dict[str, str]:
    """Return this process's variables without those that redirect Python or pip, and with a fixed hash seed."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key not in _FOREIGN}
    return {**own, "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


def _machine() -> str:
    """Return this machine's kind as in requirement files: "linux x86_64"."""
    return f"{sys.platform} {platform.machine().lower()}"
