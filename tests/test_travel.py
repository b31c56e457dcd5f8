"""`runtimes/` runs on boards: it imports and passes its tests under every Python from 3.8, with numpy alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from converters.environments.find_python import find_python
from runtimes.errors import HostError

ROOT = Path(__file__).parent.parent
OLDEST, *BETWEEN, NEWEST = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")

# Imports every module, and prints what comes of quantizing and of a file of arrays.
USE = """
import importlib
import json
import pathlib
import sys

import numpy as np
from runtimes.arrays import load_arrays, save_arrays
from runtimes.artifact import Quantization, TensorSpec
from runtimes.tensors import dequantize, quantize
root = pathlib.Path(sys.argv[1])
names = [".".join(path.relative_to(root).with_suffix("").parts) for path in sorted((root / "runtimes").rglob("*.py"))]
for name in names:
    importlib.import_module(name)
quantization = Quantization((0.125,), (3,))
values = np.linspace(-40, 40, 1001, dtype=np.float32).reshape(7, 143)
spec = TensorSpec("x", "int8", (7, 143), quantization)
taken = quantize(values, spec)
save_arrays(root / "x.npz", {"x": taken, "y": dequantize(taken, quantization)})
found = load_arrays(root / "x.npz")
print(json.dumps([len(names), found["x"].tolist(), found["y"].tolist()]))
"""


def board_with(folder: Path, *parts: str) -> Path:
    """A folder with those parts of the repository alone."""
    board = folder / "board"
    for part in parts:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, board / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, board / part)
    return board


def python_of(version: str) -> str:
    try:
        return str(find_python(version))
    except HostError as why:
        pytest.skip(str(why))


@pytest.mark.parametrize(
    "version", [OLDEST, NEWEST, *(pytest.param(version, marks=pytest.mark.slow) for version in BETWEEN)]
)
def test_runtimes_pass_their_tests_alone(version: str, tmp_path: Path) -> None:
    python = python_of(version)
    board = board_with(tmp_path, "runtimes", "tests/runtimes", "tests/real_data.py")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    inside = tmp_path / "venv" / "bin" / "python"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "numpy", "pytest==8.3.*"], check=True)
    command = [inside, "-m", "pytest", "-q", "-c", "tests/runtimes/pytest.ini", "tests/runtimes"]
    environment = {**os.environ, "PYTHONPATH": str(board)}
    done = subprocess.run(command, cwd=board, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def use(python: str, board: Path, *more: Path) -> list[object]:
    """What `USE` prints under that Python, with the board's folder and `more` to import from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (board, *more)))}
    command = [python, "-W", "error", "-c", USE, str(board)]
    done = subprocess.run(command, cwd=board, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("version", BETWEEN)
def test_runtimes_import_and_compute_the_same(version: str, tmp_path: Path) -> None:
    python = python_of(version)
    board = board_with(tmp_path, "runtimes")
    options = [
        "--quiet",
        "--target",
        tmp_path / "site",
        "--python-version",
        version,
        "--only-binary=:all:",
        "--no-compile",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "numpy"], check=True)
    found = use(python, board, tmp_path / "site")
    assert found == use(sys.executable, board)
    assert found[0] == len(list((ROOT / "runtimes").rglob("*.py")))


def test_syntax_of_a_later_python_is_seen(tmp_path: Path) -> None:
    python = python_of(OLDEST)
    board = board_with(tmp_path, "runtimes")
    (board / "runtimes" / "later.py").write_text("def f(x):\n    match x:\n        case 1:\n            return 2\n")
    environment = {**os.environ, "PYTHONPATH": str(board)}
    command = [python, "-c", "import runtimes.later"]
    done = subprocess.run(command, cwd=board, env=environment, capture_output=True, text=True, check=False)
    assert "SyntaxError" in done.stderr
