"""Check Python itself, and whether its packages fit together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from edge.doctor.packages import Packages
from edge.doctor.snapshot import Check, Finding, Snapshot

_OLDEST = (3, 11)


def version(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the version of Python: the host needs 3.11, a board 3.8."""
    text = ".".join(map(str, snapshot.python.version))
    if snapshot.python.version >= _OLDEST:
        yield Finding(level="ok", what=f"Python {text}")
        return
    yield Finding(
        level="error",
        what=f"Python {text} is too old",
        why="converting and benchmarking need Python 3.11 or newer (a board that only runs models: 3.8)",
        fix="install Python 3.11 or newer, then create a new environment: python3.11 -m venv .venv",
    )


def operating_system(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for an operating system other than Linux, the one this project is tested on."""
    system = snapshot.machine["os"]["system"]
    if snapshot.is_board or system in (None, "Linux"):
        return
    name = "macOS" if system == "Darwin" else system
    yield Finding(
        level="note",
        what=f"edge is not tested on {name}",
        why="chat, run, bench and converting to ONNX, TFLite and OpenVINO are written to work there; serving, boards "
        "over ssh, the environments of old converters, power and temperature are tested only on Linux",
        fix="if a result looks odd, compare it with a Linux machine, and report the difference",
    )


def word_size(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for a 32-bit Python: most engines are published only for 64-bit systems."""
    if snapshot.python.bits == 32:
        yield Finding(
            level="warning",
            what="this Python is a 32-bit program",
            why="nearly all engines are built only for 64 bits; tflite-runtime is the exception",
            fix="install the 64-bit image of this board's operating system",
        )


def environment(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that pip may install into this Python, or that a virtual environment can be created."""
    python = snapshot.python
    if not python.in_environment and python.externally_managed:
        yield Finding(
            level="warning",
            what="this Python belongs to the operating system, and pip will not install into it",
            why="the system's own programs depend on its packages (PEP 668)",
            fix="python3 -m venv .venv && . .venv/bin/activate",
        )
    if not python.in_environment and not python.can_make_environments:
        yield Finding(
            level="warning",
            what="this Python cannot create virtual environments",
            why="the module ensurepip is missing; Debian and Ubuntu package it separately",
            fix="sudo apt-get install python3-venv",
        )


def requirements(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the declared requirements of each package against the installed versions."""
    packaging = _packaging()
    if packaging is None:
        yield Finding(
            level="note",
            what="the packages' requirements were not checked",
            why="neither the package packaging nor pip, which contains a copy, is installed",
            fix="pip install packaging",
        )
        return
    lacking = {name: list(_unmet(snapshot.packages, name, packaging)) for name in snapshot.packages}
    for name, missing in lacking.items():
        if missing:
            yield Finding(
                level="warning",
                what=f"{name} {snapshot.packages.version(name)} lacks {', '.join(missing)}",
                why="the package requires these; it may fail when it is imported, or later",
                fix="pip install " + " ".join(f"'{one}'" for one in missing),
            )
    if not any(lacking.values()):
        yield Finding(level="ok", what=f"the requirements of all {len(snapshot.packages)} packages are satisfied")


def _unmet(packages: Packages, name: str, packaging: Any) -> Iterator[str]:
    for text in packages.requirements(name):
        try:
            wanted = packaging.Requirement(text)
        except packaging.InvalidRequirement:  # an old package, from before the syntax was standardized
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        installed = packages.version(wanted.name)
        if installed is None or not wanted.specifier.contains(installed, prereleases=True):
            yield f"{wanted.name}{wanted.specifier}"


def _packaging() -> Any | None:
    """Import the module that parses requirements: the package `packaging`, or pip's copy."""
    for name in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


# Import name → the packages that provide it, the most common one first.
_SAME_FOLDER = {
    "tensorflow": ("tensorflow-cpu", "tensorflow", "tensorflow-gpu", "tf-nightly", "tf-nightly-cpu", "tensorflow-rocm"),
    "onnxruntime": (
        *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
        *("onnxruntime-training", "ort-nightly", "ort-nightly-gpu"),
    ),
    "cv2": (
        *("opencv-python-headless", "opencv-python"),
        *("opencv-contrib-python-headless", "opencv-contrib-python"),
    ),
}


def conflicting_packages(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for several packages of TensorFlow, ONNX Runtime or OpenCV: each is published under several names."""
    for module, names in _SAME_FOLDER.items():
        installed = [name for name in names if name in snapshot.packages]
        if len(installed) > 1:
            yield Finding(
                level="warning",
                what=f"{' and '.join(installed)} are installed side by side",
                why=f"all of them install into the folder '{module}', so it is undefined which one runs",
                fix=f"pip uninstall --yes {' '.join(installed)} && pip install {installed[0]}",
            )


CHECKS: tuple[Check, ...] = (version, operating_system, word_size, environment, requirements, conflicting_packages)
