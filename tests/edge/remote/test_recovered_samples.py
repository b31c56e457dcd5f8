"""Samples that a broken connection left on a board: the next command fetches them, whichever it is."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import MODEL, edge

from edge.benchmark import read_rows
from edge.remote.board import Board
from edge.remote.recovered_samples import save
from runtimes.errors import HostError

LEFT = {"artifact": "/there/m.null", "runtime": "null", "threads": 1, "samples_ms": [1.0, 2.0, 3.0], "total_s": 0.006}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where this machine keeps what it has fetched."""
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def leave(board) -> Path:
    """What a measurement leaves on a board that has lost its client after 3 samples."""
    folder = board.home / ".edgeproof/kept/gone/m"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"job": "measure"}')
    (folder / "begun.json").write_text(json.dumps({"artifact": "/there/m.null", "runtime": "null", "threads": 1}))
    readings = np.array([1_000_000, 2_000_000, 4_000_000, 7_000_000, 0, 0], np.int64)
    (folder / "0000.times").write_bytes(readings.tobytes())
    return folder.parent


def fetched(cache, host="board"):
    return [row for path in sorted((cache / "fetched").glob(f"{host}-*.json")) for row in read_rows(path)]


def test_what_was_fetched_is_rows_of_its_own_and_overwrites_nothing(cache, caplog):
    for _ in range(2):
        save("pi@[fe80::1]", [{"values": LEFT}, {"values": {**LEFT, "status": "ok"}}])
    files = sorted((cache / "fetched").iterdir())
    assert [file.name for file in files] == ["pi_fe80_1_-1.json", "pi_fe80_1_-2.json"]
    cut, whole = read_rows(files[0])
    assert (cut.status, whole.status, cut.samples_ms) == ("host failed", "ok", LEFT["samples_ms"])
    assert "was lost during the measurement" in cut.message
    assert cut.setup != whole.setup
    said = caplog.messages
    assert all(any(f"6 samples of an interrupted run; they are now in {file}" in one for one in said) for file in files)


def test_what_cannot_be_written_here_stays_on_the_board(board, cache):
    left = leave(board)
    cache.write_text("no folder")
    with pytest.raises(HostError, match="cannot be written"):
        Board(board.name).connect()
    assert (left / "m/0000.times").exists()


@pytest.mark.parametrize("command", ["deploy", "run"])
def test_every_command_that_uses_a_board_fetches_them(board, artifact, cache, command, tmp_path):
    left = leave(board)
    words = {"deploy": (artifact, board.name), "run": (MODEL, tmp_path / "no.jpg", "--on", board.name)}
    done = edge(command, *words[command])
    (row,) = fetched(cache)
    assert row.samples_ms == [1.0, 2.0, 3.0], done.stderr
    assert "board kept 3 samples" in done.stderr
    assert not left.exists()


def test_uninstalling_fetches_them_first(board, artifact, cache):
    leave(board)
    done = edge("deploy", "--uninstall", board.name)
    assert (done.returncode, "board kept 3 samples" in done.stderr) == (0, True), done.stderr
    assert fetched(cache)[0].samples_ms == [1.0, 2.0, 3.0]
    assert list(board.home.iterdir()) == []


def test_uninstalling_tells_of_samples_that_cannot_be_fetched(boards, cache, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3", *(f"python3.{minor}" for minor in range(8, 14))):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    board = boards(environment={"PATH": f"{tools}:{os.environ['PATH']}"})
    leave(board)
    done = edge("deploy", "--uninstall", board.name)
    assert "kept of an interrupted run are lost: board cannot run workers: it has no Python" in done.stderr
    assert list(board.home.iterdir()) == []


def test_nothing_is_uninstalled_while_somebody_measures(board):
    with Board(board.name):
        before = sorted(board.home.rglob("*"))
        done = edge("deploy", "--uninstall", board.name)
        assert (done.returncode, "a measurement is running on board" in done.stderr) == (7, True), done.stderr
        assert sorted(board.home.rglob("*")) == before
    assert edge("deploy", "--uninstall", board.name).returncode == 0
