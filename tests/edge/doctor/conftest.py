"""Simulated machines and packages for the checks: system files, and package metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from edge.doctor import Snapshot
from edge.doctor.packages import Packages
from edge.doctor.snapshot import Interpreter
from runtimes import host

PLAIN_PC = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse4_1 avx2 avx_vnni\n",
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Return a function that adds files to a folder that replaces `/`, and returns the folder."""

    def write_files(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "root"

    return write_files


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Packages]:
    """Return a function that installs a package with that name, version, requirements and files in its own folder."""
    site = tmp_path / "site-packages"

    def install_package(name: str, version: str, requires: tuple[str, ...] = (), **files: str) -> Packages:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
        (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        paths = {path.replace("__", "/"): text for path, text in files.items()}
        for path, text in paths.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in paths))
        return Packages(distributions(path=[str(site)]))

    return install_package


@pytest.fixture
def snapshot(write: Callable[[Mapping[str, str]], Path]) -> Callable[..., Snapshot]:
    """A healthy PC with the files given on top of its own; keyword arguments replace fields of the snapshot.

    `cpu` and `conditions` are merged over the facts read, because load and affinity are the real machine's.
    """

    def make(files: Mapping[str, str] | None = None, **fields: Any) -> Snapshot:
        root = write({**PLAIN_PC, **(files or {})})
        machine = host.facts(root)
        machine["cpu"].update({"usable_cores": machine["cpu"]["logical_cores"], **fields.pop("cpu", {})})
        conditions = {**host.conditions(root), "load_average": 0.0, **fields.pop("conditions", {})}
        healthy = Snapshot(
            machine=machine,
            conditions=conditions,
            python=Interpreter(
                version=(3, 11, 7), bits=64, in_environment=True, externally_managed=False, can_make_environments=True
            ),
            packages=Packages([]),
            cache=Path("/nowhere/edge"),
            find_library=lambda name: None,
            may_write=lambda node: True,
            free_bytes=lambda folder: 50 * 2**30,
            trained_weights=lambda: Path("weights.safetensors"),
            engines=lambda: [],
        )
        return replace(healthy, **fields)

    return make
