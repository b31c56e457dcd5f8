"""The state of a machine, gathered once as plain values, so that tests can describe any machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from ctypes.util import find_library
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from edge.doctor.packages import Packages
from runtimes import host, registry
from runtimes.board import report
from runtimes.host.files import cache_folder
from runtimes.host.schema import Conditions, MachineFacts
from runtimes.registry import EngineStatus


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python that runs this."""

    version: tuple[int, int, int]
    bits: int
    in_environment: bool
    externally_managed: bool  # by the distribution, PEP 668: pip refuses to install outside an environment
    can_make_environments: bool
    has_pip: bool = True
    modules: tuple[str, ...] = ()  # of numpy and tensorrt
    glibc: str | None = None  # as in `glibc 2.36`; None for another C library


def free_bytes(folder: Path) -> int | None:
    """Return the free space on the disk where `folder` is or would be created; None if it is unknown."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    try:
        return None if existing is None else shutil.disk_usage(existing).free
    except OSError:
        return None


def may_write(node: str) -> bool:
    """Return whether this user may read and write a device file."""
    return os.access(node, os.R_OK | os.W_OK)


def trained_weights() -> Path | None:
    """Return the file of MobileNetV2's trained weights; None if there is none. Raises InputError for a broken file."""
    from edge.table.mobilenet_v2.weights import find_weights

    return find_weights().path


def engines() -> list[EngineStatus]:
    """Return the state of every engine that edge knows."""
    return [registry.status(engine_id) for engine_id in registry.engine_ids()]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A machine and its Python. `machine` and `conditions` are those of `runtimes.host`."""

    machine: MachineFacts
    conditions: Conditions
    python: Interpreter
    packages: Packages
    cache: Path  # where converted models are stored
    environ: Mapping[str, str] = field(default_factory=dict)
    edgetpu_package: str | None = None  # the version of the system's libedgetpu package, if installed
    edgetpu_runtime: int | None = None  # the version of the Edge TPU runtime in that library
    myriad: str | None = None  # the setupvars.sh of an OpenVINO that supports Movidius sticks
    is_board: bool = False  # at the other end of an ssh connection
    home: str = ""  # the folder that gets what is deployed
    home_writable: bool = True
    find_library: Callable[[str], str | None] = find_library
    may_write: Callable[[str], bool] = may_write
    free_bytes: Callable[[Path], int | None] = free_bytes
    engines: Callable[[], list[EngineStatus]] = engines
    trained_weights: Callable[[], Path | None] = trained_weights


def observe(root: Path = Path("/")) -> Snapshot:
    """Take a snapshot of this machine and this Python."""
    return Snapshot(
        machine=host.facts(root),
        conditions=host.conditions(root),
        python=interpreter(),
        packages=Packages.installed(),
        cache=cache_folder(),
        environ=os.environ,
        edgetpu_package=report.edgetpu_package(root),
        edgetpu_runtime=report.edgetpu_runtime(),
        myriad=report.movidius_archive(Path.home(), os.environ, root),
    )


def interpreter() -> Interpreter:
    """Describe the Python that runs this."""
    return _interpreter(report.interpreter())


def _interpreter(answer: report.InterpreterReport) -> Interpreter:
    major, minor, micro = answer["version"]
    return Interpreter(
        version=(major, minor, micro),
        bits=answer["bits"],
        in_environment=answer["in_environment"],
        externally_managed=answer["externally_managed"],
        can_make_environments=answer["can_make_environments"],
        has_pip=answer["has_pip"],
        modules=tuple(answer["modules"]),
        glibc=answer["glibc"],
    )


def _status(answer: report.EngineReport) -> EngineStatus:
    return EngineStatus(
        id=answer["id"],
        formats=tuple(answer["formats"]),
        requires=answer["requires"],
        installed=answer["installed"],
        version=answer["version"],
        lacks=answer["lacks"],
    )


def snapshot_of_board(answer: report.BoardReport) -> Snapshot:
    """Return the snapshot of a board, from the output of `runtimes.board.report` there."""
    statuses = [_status(one) for one in answer["engines"]]
    return Snapshot(
        machine=answer["machine"],
        conditions=answer["conditions"],
        python=_interpreter(answer["python"]),
        packages=Packages.from_versions(answer["packages"]),
        cache=Path("~"),
        edgetpu_package=answer["edgetpu_package"],
        edgetpu_runtime=answer["edgetpu_runtime"],
        myriad=answer["myriad"],
        is_board=True,
        home=answer["home"],
        home_writable=answer["home_writable"],
        find_library=lambda name: name if answer["libraries"].get(name) else None,
        may_write=lambda node: bool(answer["writable"].get(node, True)),
        free_bytes=lambda _: answer["free_bytes"],
        engines=lambda: statuses,
        trained_weights=lambda: None,
    )


Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of a check: what was found, why it matters, and what fixes it, one line each.

    level: One of these:
        ok: Checked and fine; `why` and `fix` are empty.
        note: Worth knowing about this machine; nothing to repair.
        warning: Something works worse than it could, or measurements suffer.
        error: Something that is installed or attached does not work.
    what: What was found.
    why: Why it matters.
    fix: The command or action that fixes it.
    """

    level: Level
    what: str
    why: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return asdict(self)


Check = Callable[[Snapshot], Iterator[Finding]]


def is_broken(findings: Iterable[Finding]) -> bool:
    """Return whether any finding is an error."""
    return any(one.level == "error" for one in findings)
