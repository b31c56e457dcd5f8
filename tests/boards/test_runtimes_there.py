"""`runtimes/` passes its own tests on an emulated aarch64 board, with real engines, in minutes of processor time."""

from __future__ import annotations

import pytest

from tests.boards.copying import send
from tests.boards.stand import Board

# The whole takes 7 minutes of processor time under emulation.
# What needs numpy alone and differs by machine first: arithmetic, files, errors as JSON.
FEW = (
    "test_arrays.py",
    "test_errors.py",
    "artifact/test_manifest.py",
    "verification/test_metrics.py",
    "measurement/test_statistics.py",
    "test_tensors.py",
)
TIME_OUT_S = 3000


def run_tests(board: Board, *files: str) -> str:
    """Run them there; the last lines that pytest printed."""
    send(board, "runtimes", "tests/runtimes", "tests/real_data.py", to="tested")
    done = board.ssh(
        "cd tested && python3 -m pytest -q -p no:cacheprovider -c tests/runtimes/pytest.ini " + " ".join(files),
        timeout=TIME_OUT_S,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    return done.stdout[-500:]


def test_arithmetic_and_files_pass_on_the_board(pi: Board) -> None:
    assert " passed" in run_tests(pi, *(f"tests/runtimes/{name}" for name in FEW))


@pytest.mark.slow
@pytest.mark.timeout(TIME_OUT_S + 600)
def test_everything_passes_on_the_board(pi: Board) -> None:
    assert " passed" in run_tests(pi, "tests/runtimes")
