"""Load extensions from other installed packages by their entry points; see docs/guides/extend.md.

    [project.entry-points."edge.engines"]
    my_engine = "my_package.my_engine:Adapter"

An extension that cannot be used is skipped with one warning that says why, so it never breaks a command that does
not use it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any, Callable, Iterable, Mapping

from runtimes.errors import first_line

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extensions:
    """The extensions that installed packages offer in one group.

    found: Id → an instance of the class that the entry point names.
    refused: Id → why it cannot be used.
    packages: Id → the distribution that provides it, "name version".
    """

    found: Mapping[str, Any]
    refused: Mapping[str, str]
    packages: Mapping[str, str]


def load(group: str, built_in: Iterable[str], check: Callable[[Any], object]) -> Extensions:
    """Load all extensions of a group; cached per process.

    group: The entry point group, such as "edge.engines". The entry point's name is the extension's id.
    built_in: Ids that are already taken.
    check: Raises TypeError or AttributeError if an object does not implement the group's interface.
    """
    return _load(group, tuple(built_in), check)


@lru_cache(maxsize=None)
def _load(group: str, built_in: tuple[str, ...], check: Callable[[Any], object]) -> Extensions:
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    packages: dict[str, str] = {}
    for name, value, package, point in sorted(_entry_points(group), key=lambda entry: entry[:3]):
        what = f"'{name}' of the package {package} ({group})"
        try:
            if name in built_in:
                raise ValueError("edge already has that name")
            if name in found:
                raise ValueError(f"{packages[name]} provides the same name")
            extension = point.load()()
            check(extension)
            if extension.id != name:
                raise ValueError(f"{value} says that its id is '{extension.id}'")
        except (Exception, SystemExit) as error:  # importing a third-party package may raise anything
            why = first_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {first_line(error)}"
            message = f"{what} is left out: {why}"
            refused.setdefault(name, message)
            _LOG.warning("edge: %s", message)
        else:
            found[name], packages[name] = extension, package
    return Extensions(found, {name: why for name, why in refused.items() if name not in found}, packages)


def _entry_points(group: str) -> Iterable[tuple[str, str, str, Any]]:
    """Yield (name, value, "distribution version", entry point), each once even if a path is listed twice."""
    known = set()
    for distribution in metadata.distributions():
        for point in distribution.entry_points:
            if point.group != group:
                continue
            package = f"{distribution.metadata['Name']} {distribution.version}"
            if (point.name, point.value, package) not in known:
                known.add((point.name, point.value, package))
                yield point.name, point.value, package, point
