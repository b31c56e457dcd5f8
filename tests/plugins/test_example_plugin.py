"""A plugin package and edge, both installed from wheels: every command lists what the plugin adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example_plugin"
# Nothing of this tree may be imported: only what the wheels installed.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with both wheels; numpy, Pillow and pytest are those that run this test."""
    folder = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, EXAMPLE], check=True, env=ENVIRONMENT)
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    install = ["--python", programs / "python", "install", "--no-deps", "--no-index", *folder.glob("*.whl")]
    subprocess.run([*pip, *install], check=True, env=ENVIRONMENT)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m.null").write_text("anything")
    return tmp_path / "m.null"


def _run(programs: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [programs / "edge", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_devices_lists_its_engine_and_its_device(programs: Path, tmp_path: Path) -> None:
    done = _run(programs, tmp_path, "devices", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    (engine,) = [one for one in found["engines"] if one["id"] == "brightness_engine"]
    assert engine["installed"]
    assert engine["version"] == "1.0"
    assert "example-board" in [one["id"] for one in found["profiles"]]


def test_run_answers_with_its_engine_and_its_task(programs: Path, model: Path) -> None:
    np.save(model.parent / "gray.npy", np.full((1, 8, 8, 3), 51, np.uint8))
    words = ("run", model, model.parent / "gray.npy", "--runtime", "brightness_engine")
    done = _run(programs, model.parent, *words, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["task"], row["result"], row["runtime"]) == ("brightness", pytest.approx(0.2), "brightness_engine")
    assert _run(programs, model.parent, *words).stdout.splitlines()[1] == "  brightness 0.200"


def test_bench_measures_its_engine(programs: Path, model: Path) -> None:
    done = _run(programs, model.parent, "bench", model, "--runtime", "brightness_engine", "--json", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["runtime"], row["runtime_version"], row["status"]) == ("brightness_engine", "1.0", "ok")


def test_its_converter_is_one_of_all(programs: Path, tmp_path: Path) -> None:
    code = "from converters.registry import all_converters; print(*(one.id for one in all_converters()))"
    command = [programs / "python", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "onnx_to_null"


def test_its_device_is_a_target(programs: Path, tmp_path: Path) -> None:
    model = ROOT / "tests" / "runtimes" / "models" / "onnxruntime.onnx"
    done = _run(programs, tmp_path, "check", model, "--for", "example-board", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"] == "example-board"
    done = _run(programs, tmp_path, "check", model, "--for", "example-boar")
    assert done.returncode == 2
    assert "example-board" in done.stderr


def test_it_passes_the_contracts_of_edge(programs: Path) -> None:
    command = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "contracts.py"]
    done = subprocess.run(command, cwd=EXAMPLE, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
