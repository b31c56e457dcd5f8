"""Find a Python of a given version on this machine that can create virtual environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtimes.errors import HostError, UsageError

# Debian packages ensurepip separately, so an installed Python may not be able to create environments.
_ASK = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.maxsize > 2 ** 32)"
_ASK_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_TIMEOUT_S = 30


def find_python(version: str, preferred: Sequence[Path] = ()) -> Path:
    """Find a 64-bit Python of this version ("3.8") that can create environments: in `preferred`, PATH, pyenv and uv.

    Raises UsageError if one of `preferred` does not run, and HostError, with how to get one, if there is none.
    """
    for python in preferred:
        if not _answer(python, _ASK_VERSION):
            raise UsageError(f"{python} is not a working Python", "pass the path of an interpreter with --python")
    candidates = list(_candidates(version, preferred))
    for python in candidates:
        if _answer(python, _ASK) == f"{version} True":
            return python
    raise _missing(version, [python for python in candidates if _answer(python, _ASK_VERSION) == version])


def _candidates(version: str, preferred: Sequence[Path]) -> Iterator[Path]:
    yield from preferred
    yield from _on_path(version)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from _newest(pyenv / "versions", f"{version}.*", "bin/python")
    yield from _of_uv(version)


def _on_path(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        path = shutil.which(f"python{version}", path=folder)
        if path:
            yield Path(path)
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        yield Path(sys.executable)


def _of_uv(version: str) -> Iterator[Path]:
    if uv := shutil.which("uv"):
        path = _output([uv, "python", "find", "--no-project", "--no-python-downloads", version])
        if path:
            yield Path(path)
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    yield from _newest(share / "uv" / "python", f"cpython-{version}.*", "bin/python")


def _newest(folder: Path, pattern: str, python: str) -> Iterator[Path]:
    """Yield the interpreters in folders named after their version, the newest first."""
    paths = [place / python for place in folder.glob(pattern) if (place / python).exists()]
    yield from sorted(paths, key=lambda path: [int(part) for part in _digits(path.parents[1].name)], reverse=True)


def _digits(name: str) -> list[str]:
    return "".join(letter if letter.isdigit() else " " for letter in name).split()


def _answer(python: Path, question: str) -> str | None:
    return _output([str(python), "-I", "-c", question])


def _output(command: list[str]) -> str | None:
    """Return the output of the command; None if it cannot be run or fails, as the shims of pyenv do."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _missing(version: str, unfit: Sequence[Path]) -> HostError:
    if unfit:
        what = f"{unfit[0]} cannot create environments: it lacks venv or ensurepip, or is a 32-bit program"
        return HostError(what, f"on Debian and Ubuntu: sudo apt-get install python{version}-venv")
    hint = f"install it with `uv python install {version}` or `pyenv install {version}`, or pass it with --python"
    return HostError(f"this needs Python {version}, which was not found on PATH, in pyenv or in uv", hint)
