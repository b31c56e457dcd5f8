"""Print everything that `edge devices` and `edge doctor` check about this machine, as JSON.

The host calls the same functions directly; for a board, they run there and the JSON is sent over ssh. glibc's version
comes from POSIX's `confstr`, which Windows lacks.
"""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.util
import json
import os
import shutil
import struct
import sys
import sysconfig
import tempfile
from ctypes.util import find_library
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence, TypedDict

from runtimes import host
from runtimes.host.files import program_output
from runtimes.host.schema import Conditions, MachineFacts

if TYPE_CHECKING:
    from runtimes.registry import EngineStatus

MYRIAD = "openvino_intel_myriad_plugin"  # its name in OpenVINO's 2022 releases, whose API we use
LIBRARIES = ("edgetpu", "edgetpu.1", "usb-1.0")


class EngineReport(TypedDict):
    """The fields of `registry.EngineStatus`, and how to install the engine."""

    id: str
    requires: str
    formats: Sequence[str]
    installed: bool
    version: str | None
    lacks: str
    hint: str | None


class InterpreterReport(TypedDict):
    """The Python that runs this."""

    version: list[int]
    bits: int
    in_environment: bool
    externally_managed: bool
    can_make_environments: bool
    has_pip: bool
    modules: list[str]
    glibc: str | None


class BoardReport(TypedDict):
    """The machine and the Python that runs this, see `collect_report`."""

    machine: MachineFacts
    conditions: Conditions
    engines: list[EngineReport]
    python: InterpreterReport
    packages: dict[str, str]
    myriad: str | None
    libraries: dict[str, bool]
    writable: dict[str, bool]
    edgetpu_package: str | None
    edgetpu_runtime: int | None
    free_bytes: int
    home: str
    home_writable: bool


def collect_report() -> BoardReport:
    """Describe the machine and its Python as JSON values.

    machine, conditions: see `runtimes.host`.
    engines: The status of each engine, and how to install it; empty if numpy is not installed.
    python: version, bits, in_environment, externally_managed, can_make_environments, has_pip, modules (of numpy and
        tensorrt), glibc.
    packages: {name: version} of the installed packages.
    myriad: see `movidius_archive`.
    libraries: {name: whether the system's loader finds it}.
    writable: {device file of an attached USB or Edge TPU device: whether this user may use it}.
    edgetpu_package: The version of libedgetpu's package, or None.
    edgetpu_runtime: The runtime version in it, which compiled files require, or None.
    free_bytes: Free space on the disk of the home folder.
    home, home_writable: That folder, and whether files can be written there.
    """
    machine = host.facts()
    return {
        "machine": machine,
        "conditions": host.conditions(),
        "engines": engines(),
        "python": interpreter(),
        "packages": {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]},
        "myriad": movidius_archive(Path.home(), os.environ),
        "libraries": {name: _is_library(name) for name in LIBRARIES},
        "writable": {node: os.access(node, os.R_OK | os.W_OK) for node in _nodes(machine)},
        "edgetpu_package": edgetpu_package(),
        "edgetpu_runtime": edgetpu_runtime(),
        "free_bytes": shutil.disk_usage(Path.home()).free,
        "home": str(Path.home()),
        "home_writable": is_writable(Path.home()),
    }


def is_writable(folder: Path) -> bool:
    """Return whether a file can be written: permissions alone do not tell, on a disk that is mounted read-only."""
    try:
        with tempfile.TemporaryFile(dir=str(folder)):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC  # a full disk is another finding


def engines() -> list[EngineReport]:
    """Return the status of all engines; empty without numpy, which all of them need."""
    if importlib.util.find_spec("numpy") is None:
        return []
    from runtimes import registry

    return [_engine(registry.status(engine_id)) for engine_id in registry.engine_ids()]


def _engine(one: EngineStatus) -> EngineReport:
    from runtimes.registry import install_hint

    return {
        "id": one.id,
        "requires": one.requires,
        "formats": one.formats,
        "installed": one.installed,
        "version": one.version,
        "lacks": one.lacks,
        "hint": None if one.installed else install_hint(one.id),
    }


def interpreter() -> InterpreterReport:
    """Describe the Python that runs this."""
    return {
        "version": list(sys.version_info[:3]),
        "bits": struct.calcsize("P") * 8,
        "in_environment": sys.prefix != sys.base_prefix,
        "externally_managed": (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists(),
        # Debian ships `venv` without `ensurepip`, and then `python -m venv` fails.
        "can_make_environments": importlib.util.find_spec("ensurepip") is not None,
        # Past the finder that setuptools puts first: asked for pip, it replaces a distutils that is in use.
        "has_pip": importlib.machinery.PathFinder.find_spec("pip") is not None,
        "modules": [name for name in ("numpy", "tensorrt") if importlib.util.find_spec(name) is not None],
        "glibc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in _names() else None,
    }


def _names() -> Mapping[str, int]:
    return getattr(os, "confstr_names", {})  # Windows has none


def edgetpu_package(root: Path = Path("/")) -> str | None:
    """Return the version of libedgetpu's package, which identifies the build: 16.0 is Google's, 16.0tf2.17 is not."""
    output = program_output(root, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\n", "libedgetpu1-*") or ""
    return next((line.split()[1] for line in output.splitlines() if line.startswith("installed ")), None)


def edgetpu_runtime() -> int | None:
    """Return the Edge TPU runtime version, see `runtimes.engines.edgetpu`; None also without numpy."""
    if importlib.util.find_spec("numpy") is None:
        return None
    from runtimes.engines.edgetpu import runtime_version

    return runtime_version()


def _is_library(name: str) -> bool:
    """Return whether the loader finds a library. As a fallback Python runs gcc, which fails on a full disk."""
    try:
        return find_library(name) is not None
    except OSError:
        return False


def _nodes(machine: MachineFacts) -> list[str]:
    attached = machine["accelerators"]
    return [*(device["node"] for device in attached["usb"] if device["node"]), *attached["nodes"]]


def movidius_archive(home: Path, environ: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """Return the `setupvars.sh` of the OpenVINO archive that drives a Movidius stick; None if it lacks the plugin.

    Only the first archive counts, because measurements on this board use it: `edge.remote.probe` searches the same
    places.
    """
    named = environ.get("INTEL_OPENVINO_DIR")
    folders = [Path(named)] if named else []
    for place in (root / "opt/intel", home / "intel", home):
        folders += sorted(place.glob("openvino*"))
    for folder in folders:
        for file in (folder / "setupvars.sh", folder / "bin" / "setupvars.sh"):
            if os.access(str(file), os.R_OK):
                return str(file) if any(folder.glob(f"runtime/lib/*/lib{MYRIAD}.so")) else None
    return None


if __name__ == "__main__":
    print(json.dumps(collect_report()))
