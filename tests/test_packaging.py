"""The wheel: built from the tree, installed with numpy only, used from an empty folder."""

import json
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.registry import all_converters
from runtimes import registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaging")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]  # ensurepip takes longer than all else
    subprocess.run([*pip, "install", "--quiet", wheel], check=True)
    return programs / "edge"


def _run(edge: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([edge, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_works_from_an_empty_folder(edge: Path, tmp_path: Path) -> None:
    done = _run(edge, tmp_path, "--help")
    assert done.returncode == 0
    assert "devices" in done.stdout


def test_devices_works_with_numpy_alone(edge: Path, tmp_path: Path) -> None:
    done = _run(edge, tmp_path, "devices", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"machine", "accelerators", "engines", "profiles"} <= set(found)
    assert len(found["profiles"]) >= 8


def test_a_missing_engine_names_its_extra(edge: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    done = _run(edge, tmp_path, "bench", "model.tflite")
    assert done.returncode == 4
    assert "edgeproof[litert]" in done.stdout


def test_every_extra_is_named_as_it_is_declared() -> None:
    """pip before 23.3 compares the words as they stand, warns of one that it does not find, and installs nothing."""
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = set(_named_extras())
    assert {"llama-cpp", "tflite-quantizer", "table"} <= named
    assert named <= declared


def _named_extras() -> Iterator[str]:
    """The extras in the Makefile, pyproject.toml, the documents and the hints of engines and converters."""
    hints = [registry.install_hint(name) for name in registry.engine_ids() if registry.engine(name).requires]
    libraries = [library for one in all_converters() for library in one.requires]
    hints += [registry.install_hint(one.extra or one.module) for one in libraries]
    files = [ROOT / name for name in ("Makefile", "pyproject.toml", "README.md", "CONTRIBUTING.md")]
    texts = [path.read_text(encoding="utf-8") for path in (*files, *(ROOT / "docs").rglob("*.md"))]
    for words in re.findall(r"(?:edgeproof|'\.)\[([a-z_,-]+)\]", "\n".join((*texts, *hints))):
        yield from words.split(",")
