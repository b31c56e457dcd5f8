"""The installed Python packages, read from their metadata without importing them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path


class Packages:
    """Installed packages by name; names are compared without case, and `-`, `_` and `.` are equal."""

    def __init__(self, found: Iterable[Distribution]) -> None:
        self._found: dict[str, Distribution] = {}
        for distribution in found:
            name = distribution.metadata["Name"]
            if name:  # the remains of a failed uninstallation have no name
                # Python imports the first one on the path.
                self._found.setdefault(_canonical(name), distribution)

    @classmethod
    def installed(cls) -> Packages:
        """Return the packages that this Python can import."""
        return cls(distributions())

    @classmethod
    def from_versions(cls, versions: Mapping[str, str]) -> Packages:
        """Return the packages of another machine, of which only names and versions are known."""
        return cls(_RemoteDistribution(name, version) for name, version in versions.items())

    def __contains__(self, name: str) -> bool:
        return _canonical(name) in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def version(self, name: str) -> str | None:
        """Return the version of a package; None if it is not installed."""
        distribution = self._found.get(_canonical(name))
        return None if distribution is None else distribution.version

    def requirements(self, name: str) -> list[str]:
        """Return the declared requirements of a package, such as `numpy>=1.24; python_version > "3.8"`."""
        distribution = self._found.get(_canonical(name))
        return [] if distribution is None else list(distribution.requires or [])

    def file(self, name: str, path: str) -> Path | None:
        """Return an installed file of a package, such as `torch/version.py`; None if it does not exist."""
        distribution = self._found.get(_canonical(name))
        file = None if distribution is None else Path(str(distribution.locate_file(path)))
        return file if file is not None and file.is_file() else None

    def file_names(self, name: str) -> list[str]:
        """List the paths of all files of a package; empty if it is not installed or does not list them."""
        distribution = self._found.get(_canonical(name))
        return [] if distribution is None else [str(path) for path in distribution.files or ()]


class _RemoteDistribution(Distribution):
    """A package on another machine, known only by name and version."""

    def __init__(self, name: str, version: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename: str) -> str | None:
        """Return the metadata file, made from name and version."""
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        """Return a path that does not exist: the files are not on this machine."""
        return Path(os.devnull, path)


def major(version: str) -> int:
    """Return the first number of a version; 0 if it does not start with one."""
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 0


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
