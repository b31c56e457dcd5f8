"""The proxy for bad connections delays, throttles, stalls and cuts a real ssh connection as requested."""

from __future__ import annotations

import subprocess

import pytest

from tests.boards.fixtures import Boards
from tests.boards.line import Line, through
from tests.boards.stand import Board


def test_a_good_line_is_not_felt(pi: Board) -> None:
    line = Line()
    with through(pi, line) as far:
        assert far.ssh("cat", input="x" * 100_000).stdout == "x" * 100_000
    assert line.connections == 1
    assert line.carried > 200_000


def test_a_cut_line_ends_ssh_and_heals(pi: Board) -> None:
    line = Line(cut_after=20_000)
    with through(pi, line) as far:
        done = far.ssh("head -c 1000000 /dev/zero")
        assert done.returncode == 255
        assert len(done.stdout) < 20_000
        line.heal()
        assert far.ssh("echo again").stdout == "again\n"


def test_a_stalled_line_says_nothing(pi: Board) -> None:
    with through(pi, Line(stall_after=20_000)) as far, pytest.raises(subprocess.TimeoutExpired) as still:
        far.ssh("head -c 1000000 /dev/zero", timeout=10)
    assert len(still.value.stdout or b"") < 20_000


def test_a_line_that_refuses(boards: Boards) -> None:
    with through(boards(), Line(refuse=True)) as far:
        assert far.ssh("true").returncode == 255
