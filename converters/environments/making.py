"""Make an environment: a fresh folder beside its place, filled from hashed pins, and renamed when it is whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from converters.environments import Report, clean_variables, interpreter
from converters.environments.pythons import find_python
from converters.quiet import useful_text
from runtimes.errors import HostError

if TYPE_CHECKING:
    from converters.environments import Environment

_PARTIAL = ".partial"


def make(environment: Environment, pythons: Sequence[Path], report: Report) -> None:
    """Make it in its folder; see `Environment.create`. A second process waits, and then finds it there."""
    place = environment.folder
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_name(f"{place.name}.lock"), report, environment.name):
            if not environment.python.exists():
                _make_afresh(environment, pythons, report)
    except OSError as error:
        hint = "give the cache another folder with EDGE_CACHE"
        raise HostError(f"{place} cannot be made: {error.strerror or error}", hint) from error


def _make_afresh(environment: Environment, pythons: Sequence[Path], report: Report) -> None:
    place = environment.folder
    python = find_python(environment.python_version, pythons)
    for left in place.parent.glob(f"{place.name}.*{_PARTIAL}"):  # of a process that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=_PARTIAL, dir=place.parent))
    try:
        report(f"making the environment '{environment.name}' (once): Python {environment.python_version}")
        _run([str(python), "-I", "-m", "venv", str(work)], environment.name)
        _install(environment, interpreter(work), report)
        if place.exists():  # its Python has gone
            shutil.rmtree(place)
        work.rename(place)  # scripts in bin/ keep the old path; nothing here calls them
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _install(environment: Environment, python: Path, report: Report) -> None:
    pip = [python, "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--progress-bar", "off"]
    pins = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", environment.requirements]
    count = environment.requirements.read_text(encoding="utf-8").count("==")

    def show(package: str, place: int) -> None:
        report(f"making the environment '{environment.name}' (once): {place} of {count}, {package}")

    _run([*map(str, pip), *map(str, pins)], environment.name, show)


def _run(command: Sequence[str], name: str, show: Callable[[str, int], None] | None = None) -> None:
    """Run to the end, showing each package that pip begins with; HostError with its error line when it fails."""
    lines: list[str] = []
    begun = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=clean_variables()
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.strip())
                if show is not None and line.startswith(("Collecting ", "Processing ")):
                    begun += 1
                    show(Path(line.split()[1]).name, begun)
            process.wait()
        finally:
            process.kill()
    if process.returncode != 0:
        raise _failed(name, lines)


def _failed(name: str, lines: Sequence[str]) -> HostError:
    errors = [line for line in lines if line.startswith(("ERROR", "Error", "error"))] or [
        line for line in lines if line
    ]
    said = useful_text(errors[0].removeprefix("ERROR: ")) if errors else "nothing"
    error = HostError(
        f"the environment '{name}' could not be made; pip said: {said}",
        "it needs the network (once) and some gigabytes of disk; try again, or see --debug",
    )
    error.add_note("\n".join(lines[-40:]))
    return error


@contextmanager
def _locked(path: Path, report: Report, name: str) -> Iterator[None]:
    """Hold the lock file, waiting for another process that holds it; the system frees it when its holder dies."""
    with path.open("a+b") as stream:
        if not _try_lock(stream):
            report(f"waiting for another process that makes the environment '{name}'")
            _lock(stream)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(stream: IO[bytes]) -> bool:
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _lock(stream: IO[bytes]) -> None:
        while True:  # LK_LOCK gives up after 10 s
            try:
                return msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
            except OSError:
                continue

else:
    import fcntl

    def _try_lock(stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _lock(stream: IO[bytes]) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX)
