"""The wheel: built from the tree, installed with numpy only, used from an empty folder."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

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
