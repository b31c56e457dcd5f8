"""Copy to a board with tar through ssh, without `edge deploy`, which has tests of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.boards.stand import Board

REPOSITORY = Path(__file__).parents[2]


def send(board: Board, *folders: str, to: str = ".") -> None:
    """Folders and files of this repository, such as `runtimes`, below `to` in the board's home."""
    tar = ["tar", "-c", "--exclude=__pycache__", "-C", REPOSITORY, *folders]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as files:
        done = board.ssh(f"mkdir -p {to} && tar -x -C {to}", stdin=files.stdout)
    assert done.returncode == 0, done.stderr
    assert files.returncode == 0
