"""All that the checks look at, gathered once, as values: a test makes up any machine that it likes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from ctypes.util import find_library
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from edge.doctor.packages import Packages
from runtimes import host, registry, tell
from runtimes.cache import cache_folder
from runtimes.registry import EngineStatus

_STATUS = [one.name for one in dataclass_fields(EngineStatus)]


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs this."""

    version: tuple[int, int, int]
    bits: int
    in_environment: bool
    externally_managed: bool  # by the distribution, PEP 668: pip refuses to install outside an environment
    can_make_environments: bool


def free_bytes(folder: Path) -> int | None:
    """The free space where `folder` is or would be made; None when that cannot be told."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    try:
        return None if existing is None else shutil.disk_usage(existing).free
    except OSError:
        return None


def may_write(node: str) -> bool:
    """Whether this user may read and write a device file."""
    return os.access(node, os.R_OK | os.W_OK)


def trained_weights() -> Path | None:
    """The file of MobileNetV2's trained weights; None when there are only random ones. InputError for a broken file."""
    from converters.mobilenet_v2.weights import find_weights

    return find_weights().path


def engines() -> list[EngineStatus]:
    """The state of every engine that edge knows."""
    return [registry.status(runtime_id) for runtime_id in registry.runtime_ids()]


@dataclass(frozen=True)
class Situation:
    """A machine and its Python: `machine` and `conditions` are those of `runtimes.host`."""

    machine: Mapping[str, Any]
    conditions: Mapping[str, Any]
    python: Interpreter
    packages: Packages
    cache: Path  # where converted models are kept
    environ: Mapping[str, str] = field(default_factory=dict)
    edgetpu_package: str | None = None  # the version of libedgetpu's package, where the system has one
    edgetpu_runtime: int | None = None  # the runtime's version in that library
    myriad: str | None = None  # the setupvars.sh of an OpenVINO that drives Movidius sticks
    is_board: bool = False  # at the other end of an ssh connection
    find_library: Callable[[str], str | None] = find_library
    may_write: Callable[[str], bool] = may_write
    free_bytes: Callable[[Path], int | None] = free_bytes
    engines: Callable[[], list[EngineStatus]] = engines
    trained_weights: Callable[[], Path | None] = trained_weights


def observe(root: Path = Path("/")) -> Situation:
    """This machine and the Python that runs this."""
    return Situation(
        machine=host.facts(root),
        conditions=host.conditions(root),
        python=interpreter(),
        packages=Packages.installed(),
        cache=cache_folder(),
        environ=os.environ,
        edgetpu_package=tell.edgetpu_package(root),
        edgetpu_runtime=tell.edgetpu_runtime(),
        myriad=tell.movidius_archive(Path.home(), os.environ, root),
    )


def interpreter() -> Interpreter:
    """The Python that runs this."""
    return _interpreter(tell.interpreter())


def _interpreter(told: Mapping[str, Any]) -> Interpreter:
    return Interpreter(**{**told, "version": tuple(told["version"])})


def of_board(told: Mapping[str, Any]) -> Situation:
    """A board, from what `runtimes.tell` says there."""
    statuses = [EngineStatus(**{key: one[key] for key in _STATUS}) for one in told["engines"]]
    return Situation(
        machine=told["machine"],
        conditions=told["conditions"],
        python=_interpreter(told["python"]),
        packages=Packages.named(told["packages"]),
        cache=Path("~"),
        edgetpu_package=told["edgetpu_package"],
        edgetpu_runtime=told["edgetpu_runtime"],
        myriad=told["myriad"],
        is_board=True,
        find_library=lambda name: name if told["libraries"].get(name) else None,
        may_write=lambda node: bool(told["writable"].get(node, True)),
        free_bytes=lambda _: told["free_bytes"],
        engines=lambda: statuses,
        trained_weights=lambda: None,
    )
