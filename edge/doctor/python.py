"""Python itself, and whether the packages in it fit together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from edge.doctor.finding import Check, Finding
from edge.doctor.packages import Packages
from edge.doctor.situation import Situation

_OLDEST = (3, 11)


def version(situation: Situation) -> Iterator[Finding]:
    """The host's side of this project needs Python 3.11; a board's side is content with 3.8."""
    words = ".".join(map(str, situation.python.version))
    if situation.python.version >= _OLDEST:
        yield Finding("ok", f"Python {words}")
        return
    yield Finding(
        "error",
        f"Python {words} is too old",
        "converting and benchmarking need Python 3.11 or newer (a board that only runs models: 3.8)",
        "install Python 3.11 or newer, then make a new environment: python3.11 -m venv .venv",
    )


def word_size(situation: Situation) -> Iterator[Finding]:
    """Engines are published for 64-bit systems."""
    if situation.python.bits == 32:
        yield Finding(
            "warning",
            "this Python is a 32-bit program",
            "nearly all engines are built for 64 bits only; of the ones here, tflite-runtime alone is not",
            "install the 64-bit image of this board's operating system",
        )


def environment(situation: Situation) -> Iterator[Finding]:
    """Where pip may install, and whether a place for it can be made."""
    python = situation.python
    if not python.in_environment and python.externally_managed:
        yield Finding(
            "warning",
            "this Python belongs to the operating system, and pip will not install into it",
            "the system's own programs depend on its packages (PEP 668)",
            "python3 -m venv .venv && . .venv/bin/activate",
        )
    if not python.in_environment and not python.can_make_environments:
        yield Finding(
            "warning",
            "this Python cannot make virtual environments",
            "the module ensurepip is missing; Debian and Ubuntu package it apart",
            "sudo apt-get install python3-venv",
        )


def requirements(situation: Situation) -> Iterator[Finding]:
    """What each package says it needs, against what is there."""
    packaging = _packaging()
    if packaging is None:
        yield Finding(
            "note",
            "the packages' requirements were not checked",
            "the package packaging is not installed, nor pip, which carries a copy",
            "pip install packaging",
        )
        return
    lacking = {name: list(_unmet(situation.packages, name, packaging)) for name in situation.packages}
    for name, missing in lacking.items():
        if missing:
            yield Finding(
                "warning",
                f"{name} {situation.packages.version(name)} lacks {', '.join(missing)}",
                "the package names these as its requirements; it may fail when it is imported, or later",
                "pip install " + " ".join(f"'{one}'" for one in missing),
            )
    if not any(lacking.values()):
        yield Finding("ok", f"{len(situation.packages)} packages, and each has what it requires")


def _unmet(packages: Packages, name: str, packaging: Any) -> Iterator[str]:
    for text in packages.requirements(name):
        try:
            wanted = packaging.Requirement(text)
        except packaging.InvalidRequirement:  # of an old package, from before the syntax was settled
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = packages.version(wanted.name)
        if there is None or not wanted.specifier.contains(there, prereleases=True):
            yield f"{wanted.name}{wanted.specifier}"


def _packaging() -> Any | None:
    """The module that reads requirements: a package of its own, or pip's copy."""
    for name in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


CHECKS: tuple[Check, ...] = (version, word_size, environment, requirements)
