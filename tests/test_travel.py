"""`runtimes/` travels to boards: it imports and passes its tests under every Python from 3.8, with numpy alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from converters.environments.pythons import find_python
from runtimes.errors import HostError

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


@pytest.mark.parametrize("version", VERSIONS)
def test_runtimes_pass_their_tests_alone(version: str, tmp_path: Path) -> None:
    try:
        python = find_python(version)
    except HostError as why:
        pytest.skip(str(why))
    board = tmp_path / "board"
    for folder in ("runtimes", "tests/runtimes"):
        shutil.copytree(ROOT / folder, board / folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    inside = tmp_path / "venv" / "bin" / "python"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "numpy", "pytest==8.3.*"], check=True)
    command = [inside, "-m", "pytest", "-q", "-c", "tests/runtimes/pytest.ini", "tests/runtimes"]
    environment = {**os.environ, "PYTHONPATH": str(board)}
    done = subprocess.run(command, cwd=board, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
