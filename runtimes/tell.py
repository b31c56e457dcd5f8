"""All that `edge devices` and `edge doctor` look at, of the machine that this runs on, as JSON on stdout.

Board and host use the same functions; over an ssh connection this is how their answers travel.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import sys
import sysconfig
from ctypes.util import find_library
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Mapping

from runtimes import host
from runtimes.host.files import program_output

MYRIAD = "openvino_intel_myriad_plugin"  # as OpenVINO's releases of 2022 call it, whose interface we speak
LIBRARIES = ("edgetpu", "edgetpu.1", "usb-1.0")


def tell() -> dict[str, Any]:
    """The machine and the Python that runs this, ready for JSON.

    machine, conditions  as `runtimes.host` has them
    engines              each as `registry.status` has it, and its hint; none where numpy is not installed
    python               version, bits, in_environment, externally_managed, can_make_environments
    packages             {name: version} of what is installed
    myriad               as `movidius_archive` has it
    libraries            {name: whether the system's loader finds it}
    writable             {device file of an attached USB or Edge TPU device: whether this user may use it}
    edgetpu_package      the version of libedgetpu's package, or None
    edgetpu_runtime      the runtime's version in it, which compiled files ask for, or None
    free_bytes           on the disk of the home folder
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
    }


def engines() -> list[dict[str, Any]]:
    """Every engine that edge knows, and whether it is installed; empty without numpy, which all of them need."""
    if importlib.util.find_spec("numpy") is None:
        return []
    from runtimes import registry

    found = map(registry.status, registry.runtime_ids())
    return [{**asdict(one), "hint": None if one.installed else registry.install_hint(one.id)} for one in found]


def interpreter() -> dict[str, Any]:
    """The Python that runs this."""
    return {
        "version": list(sys.version_info[:3]),
        "bits": struct.calcsize("P") * 8,
        "in_environment": sys.prefix != sys.base_prefix,
        "externally_managed": (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists(),
        # Debian ships `venv` without `ensurepip`, and then `python -m venv` fails.
        "can_make_environments": importlib.util.find_spec("ensurepip") is not None,
    }


def edgetpu_package(root: Path = Path("/")) -> str | None:
    """The version of libedgetpu's package, which tells whose build it is: 16.0 is Google's, 16.0tf2.17 is not."""
    told = program_output(root, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\n", "libedgetpu1-*") or ""
    return next((line.split()[1] for line in told.splitlines() if line.startswith("installed ")), None)


def edgetpu_runtime() -> int | None:
    """As `runtimes.engines.edgetpu` has it; None too without numpy, which that needs."""
    if importlib.util.find_spec("numpy") is None:
        return None
    from runtimes.engines.edgetpu import runtime_version

    return runtime_version()


def _is_library(name: str) -> bool:
    """Whether the loader finds it; where it does not, Python asks gcc too, for which a full disk has no room."""
    try:
        return find_library(name) is not None
    except OSError:
        return False


def _nodes(machine: dict[str, Any]) -> list[str]:
    attached = machine["accelerators"]
    return [*(device["node"] for device in attached["usb"] if device["node"]), *attached["nodes"]]


def movidius_archive(home: Path, environ: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """The `setupvars.sh` of the OpenVINO archive that drives a Movidius stick; None where the first has no plugin.

    The first is the one that a measurement on this board takes: `edge.remote.survey` looks in the same places.
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
    print(json.dumps(tell()))
