"""A Coral without pycoral: LiteRT with libedgetpu as its delegate, measured here, on a board and in the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Boards, edge
from sshd import Board

from edge.table.bundle import Bundle
from edge.table.images import Pictures
from edge.table.measure import TableOptions, make_table
from edge.table.setups import TableSetup
from tests import edgetpu_stand_in as stand_in

pytest.importorskip("ai_edge_litert")

QUICK = ("--protocol", "published", "--runs", "5", "--rounds", "1")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in.build(tmp_path_factory.mktemp("libedgetpu"))


@pytest.fixture
def coral(tmp_path: Path) -> Path:
    return stand_in.artifact(tmp_path / "coral")


def test_a_compiled_model_is_measured_without_pycoral(coral: Path, library: Path) -> None:
    done = edge("bench", coral, "--json", *QUICK, LD_LIBRARY_PATH=str(library))
    (row,) = json.loads(done.stdout)
    assert (row["status"], row["runtime"], len(row["samples_ms"])) == ("ok", "edgetpu", 5), done.stderr


def test_its_answers_are_those_of_the_delegate(coral: Path, library: Path) -> None:
    done = edge("verify", coral, LD_LIBRARY_PATH=str(library))
    assert done.returncode == 0, done.stdout + done.stderr


def test_answers_of_another_program_do_not_pass(library: Path) -> None:
    """The committed artifact holds the answers of its source, which the checksum of the stand-in is not."""
    done = edge("verify", stand_in.COMPILED, LD_LIBRARY_PATH=str(library))
    assert done.returncode == 6, done.stdout + done.stderr


def test_without_a_stick_it_is_an_engine_that_failed(coral: Path, library: Path) -> None:
    done = edge("bench", coral, "--json", *QUICK, LD_LIBRARY_PATH=str(library), EDGETPU_STICK="none")
    (row,) = json.loads(done.stdout)
    assert (row["status"], done.returncode) == ("engine failed", 4)
    assert "no Edge TPU found" in row["message"]


def test_without_the_library_it_is_an_engine_that_is_missing(coral: Path) -> None:
    done = edge("bench", coral, "--json", *QUICK, LD_LIBRARY_PATH="")
    (row,) = json.loads(done.stdout)
    assert (row["status"], done.returncode) == ("engine missing", 4)


@pytest.fixture
def board(boards: Boards, installed: Path, library: Path) -> Board:
    """A board with libedgetpu and the interpreter that `edge deploy` installs for it."""
    board = boards(engines=installed, environment={"LD_LIBRARY_PATH": str(library)})
    for litert in (board.home / ".edgeproof" / "engines").glob("litert-*"):
        litert.rename(litert.with_name(litert.name.replace("litert", "edgetpu")))
    return board


def test_a_board_measures_it(board: Board, coral: Path) -> None:
    (row,) = json.loads(edge("bench", coral, "--on", board.name, "--json", *QUICK).stdout)
    assert (row["status"], row["host"], row["runtime"]) == ("ok", board.name, "edgetpu"), row


def test_a_board_gets_it_and_verifies_it(board: Board, coral: Path) -> None:
    done = edge("deploy", coral, board.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"]


def test_the_tables_row_of_a_coral_is_measured(
    coral: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    coral.rename(tmp_path / "edgetpu-2019")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    bundle = Bundle(
        path=tmp_path,
        weights="random",
        trained=False,
        picture="noise",
        pictures=Pictures(benchmark=pixels[:1], calibration=pixels),
    )
    setup = TableSetup(
        id="coral-usb", title="Coral Edge TPU, TFLite uint8", artifact="edgetpu-2019", runtime="edgetpu", threads=None
    )
    table = make_table(bundle, [setup], TableOptions(runs=3, rounds=1, quiet=True))
    assert table.exit_code == 0
    (row,) = [row for row in table.rows if row.id == "coral-usb"]
    assert row.kind == "measured"
