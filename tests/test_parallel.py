"""The distribution over several processes, when one of them dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
import pytest
from tests import parallel

@pytest.hookimpl
def pytest_xdist_make_scheduler(config, log):
    return parallel.longest_first(config, log)
"""
LOST = "import os\n\ndef test_lost():\n    os._exit(1)\n"
ONE_MORE = "\ndef test_after():\n    pass\n"
TWO_MORE = "\ndef test_last():\n    pass\n"
LOST_TOO = LOST.replace("test_lost", "test_lost_too") + ONE_MORE
PASSES = "def test_one():\n    pass\n\ndef test_two():\n    pass\n"


@pytest.mark.parametrize(("after", "passed"), [("", 2), (ONE_MORE, 3), (ONE_MORE + TWO_MORE, 4)])
def test_a_lost_process_fails_its_test_and_the_others_run(tmp_path: Path, after: str, passed: int) -> None:
    ended = _run(tmp_path, test_lost=LOST + after, test_others=PASSES)
    assert f"1 failed, {passed} passed" in ended
    assert "crashed while running 'test_lost.py::test_lost'" in ended


def test_two_lost_processes_at_once_end_the_run_too(tmp_path: Path) -> None:
    ended = _run(tmp_path, test_lost=LOST + ONE_MORE, test_lost_too=LOST_TOO, test_others=PASSES)
    assert "2 failed, 4 passed" in ended


def _run(folder: Path, **modules: str) -> str:
    """Run these modules in two processes, and return what pytest printed."""
    pytest.importorskip("xdist")
    (folder / "conftest.py").write_text(CONFTEST)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-n2", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", "."]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [*command, str(folder)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return ended.stdout + ended.stderr
