"""Create an environment: a temporary folder, filled from hashed pins, which gets its name when it is complete.

The lock is POSIX's `flock`, and `msvcrt.locking` on Windows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from converters.environments.definition import Definition, Report, SourcePackage, clean_variables, interpreter
from converters.environments.find_python import find_python
from converters.library_calls import useful_text
from runtimes.errors import HostError

_PARTIAL = ".partial"


def make(environment: Definition, pythons: Sequence[Path], report: Report) -> None:
    """Create an environment in its folder; see `Environment.create`. A second process waits for the first."""
    place = environment.folder
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _hold_lock(place.with_name(f"{place.name}.lock"), report, environment.name):
            if not environment.python.exists():
                _create(environment, pythons, report)
    except OSError as error:
        hint = "set EDGE_CACHE to another folder"
        raise HostError(f"{place} cannot be created: {error.strerror or error}", hint) from error


def _create(environment: Definition, pythons: Sequence[Path], report: Report) -> None:
    place = environment.folder
    python = find_python(environment.python_version, pythons)
    for left in place.parent.glob(f"{place.name}.*{_PARTIAL}"):  # of a process that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=_PARTIAL, dir=place.parent))
    try:
        report(f"creating the environment '{environment.name}' (once): Python {environment.python_version}")
        _run([str(python), "-I", "-m", "venv", str(work)], environment.name)
        _install(environment, interpreter(work), report)
        if environment.source is not None:
            _unpack(environment.source, environment.name, interpreter(work), work / "source", report)
        if place.exists():  # an environment whose Python was removed
            shutil.rmtree(place)
        work.rename(place)  # scripts in bin/ contain the old path, but are not used
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _install(environment: Definition, python: Path, report: Report) -> None:
    pip = [python, "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--progress-bar", "off"]
    pins = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", environment.requirements]
    count = environment.requirements.read_text(encoding="utf-8").count("==")

    def show(package: str, place: int) -> None:
        report(f"creating the environment '{environment.name}' (once): {place} of {count}, {package}")

    _run([*map(str, pip), *map(str, pins)], environment.name, show)


def _unpack(source: SourcePackage, name: str, python: Path, place: Path, report: Report) -> None:
    """Download a source package by its hash and unpack a part of it; nothing is built."""
    report(f"creating the environment '{name}' (once): the source of {source.pin.split()[0]}")
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        pins = Path(folder) / "source.txt"
        pins.write_text(f"{source.pin}\n", encoding="utf-8")
        pip = [
            str(python),
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "download",
            "--progress-bar",
            "off",
        ]
        # pip builds the package's metadata; the packages needed for that are pinned, so nothing else is downloaded.
        flags = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        _run([*pip, *flags, "-r", str(pins), "-d", folder], name)
        archive = next(Path(folder).glob("*.tar.gz"))
        with tarfile.open(archive) as content:
            for member in content:
                path = member.name.partition("/")[2]
                inside = path.removeprefix(source.folder)
                if member.isfile() and path != inside and inside.startswith(source.prefixes):
                    member.name = inside
                    content.extract(member, place, filter="data")


def _run(command: Sequence[str], name: str, show: Callable[[str, int], None] | None = None) -> None:
    """Run pip, and call `show` for each package that it starts. Raises HostError with pip's error line."""
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
        raise _failure(name, lines)


def _failure(name: str, lines: Sequence[str]) -> HostError:
    errors = [line for line in lines if line.startswith(("ERROR", "Error", "error"))] or [
        line for line in lines if line
    ]
    reason = useful_text(errors[0].removeprefix("ERROR: ")) if errors else "pip printed nothing"
    error = HostError(
        f"the environment '{name}' could not be created: {reason}",
        "it needs the network (once) and a few gigabytes of disk; try again, or see --debug",
    )
    error.add_note("\n".join(lines[-40:]))
    return error


@contextmanager
def _hold_lock(path: Path, report: Report, name: str) -> Iterator[None]:
    """Hold the lock file, after waiting for any other holder; the system releases it when the process ends."""
    with path.open("a+b") as stream:
        if not _try_lock(stream):
            report(f"waiting for another process that creates the environment '{name}'")
            _lock(stream)
        yield


def _try_lock(stream: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock(stream: IO[bytes]) -> None:
    if sys.platform == "win32":
        while not _try_lock(stream):
            time.sleep(1.0)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
