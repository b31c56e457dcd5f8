"""The Python packages that are installed, read from their metadata; none of them is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path


class Packages:
    """Installed packages by name; `-`, `_` and `.` are the same in a name, as are upper and lower case."""

    def __init__(self, found: Iterable[Distribution]) -> None:
        self._found: dict[str, Distribution] = {}
        for distribution in found:
            name = distribution.metadata["Name"]
            if name:  # the remains of a broken uninstallation have none
                # The first one on the path is the one that Python imports.
                self._found.setdefault(_canonical(name), distribution)

    @classmethod
    def installed(cls) -> Packages:
        """What this Python can import."""
        return cls(distributions())

    @classmethod
    def named(cls, versions: Mapping[str, str]) -> Packages:
        """The packages of another machine, of which no more is known than this."""
        return cls(_Elsewhere(name, version) for name, version in versions.items())

    def __contains__(self, name: str) -> bool:
        return _canonical(name) in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def version(self, name: str) -> str | None:
        """The version of a package; None when it is not installed."""
        found = self._found.get(_canonical(name))
        return None if found is None else found.version

    def requirements(self, name: str) -> list[str]:
        """What a package says that it needs, such as `numpy>=1.24; python_version > "3.8"`."""
        found = self._found.get(_canonical(name))
        return [] if found is None else list(found.requires or [])

    def file(self, name: str, path: str) -> Path | None:
        """A file that the package installed beside its siblings, such as `torch/version.py`; None when absent."""
        found = self._found.get(_canonical(name))
        place = None if found is None else Path(str(found.locate_file(path)))
        return place if place is not None and place.is_file() else None

    def file_names(self, name: str) -> list[str]:
        """The paths of all files of a package; empty when it is not installed or does not list them."""
        found = self._found.get(_canonical(name))
        return [] if found is None else [str(path) for path in found.files or ()]


class _Elsewhere(Distribution):
    """A package on another machine: its name and its version."""

    def __init__(self, name: str, version: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename: str) -> str | None:
        """What is known of it, in the file where Python looks for that."""
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        """Nowhere here."""
        return Path(os.devnull, path)


def major(version: str) -> int:
    """The first number of a version; 0 where it does not begin with one."""
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 0


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
