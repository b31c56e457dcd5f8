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
PASSES = "def test_one():\n    pass\n\ndef test_two():\n    pass\n"


@pytest.mark.parametrize(("after", "passed"), [("", 2), (ONE_MORE, 3), (ONE_MORE + TWO_MORE, 4)])
def test_a_lost_process_fails_its_test_and_the_others_run(tmp_path: Path, after: str, passed: int) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_lost.py").write_text(LOST + after)
    (tmp_path / "test_others.py").write_text(PASSES)
    command = [sys.executable, "-m", "pytest", "-n2", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", "."]
    ended = subprocess.run(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"1 failed, {passed} passed" in ended.stdout, ended.stdout
    assert "crashed while running 'test_lost.py::test_lost'" in ended.stdout
