"""An emulated aarch64 board: the same answers as here, its own facts, and times marked as meaningless."""

import json

import numpy as np
import pytest
from conftest import edge

from edge.benchmark import Setup, findings, rows_of
from edge.doctor import examine_board, snapshot_of_board
from edge.remote.board import Board
from edge.remote.facts import remote_facts
from edge.remote.fleet import measure_on
from edge.workers.process import run_job
from runtimes.arrays import load_arrays
from runtimes.jobs import RunJob
from tests.boards.faces import JETSON_NANO, RASPBERRY_PI_4, throttling_vcgencmd, vcgencmd
from tests.boards.fixtures import board_root, boards, pi

__all__ = ["board_root", "boards", "pi"]  # fixtures

TIMEOUT_S = 2400  # emulated, and perhaps on a busy machine


@pytest.fixture
def arm(pi, monkeypatch):
    monkeypatch.setenv("EDGE_SSH", f"ssh -F {pi.config}")
    return pi


def outputs(model, inputs, out, place):
    job = RunJob(str(model), str(inputs), str(out))
    run_job(job, timeout_s=300, **({"place": place} if place else {}))
    (values,) = load_arrays(out).values()
    return values


@pytest.mark.data
def test_int8_is_bit_equal_to_this_machine_on_a_picture(arm, data, tmp_path):
    image = pytest.importorskip("PIL.Image")
    with image.open(data / "images" / "parrot.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB").resize((224, 224), image.Resampling.BILINEAR))
    np.savez(tmp_path / "in.npz", x=pixels[None, None])
    model = data / "mobilenet_v2/tf2_mobilenet_v2_1.0_224_ptq.tflite"
    here = outputs(model, tmp_path / "in.npz", tmp_path / "here.npz", None)
    with Board(arm.name) as place:
        there = outputs(model, tmp_path / "in.npz", tmp_path / "there.npz", place)
    assert there.dtype == here.dtype
    assert there.tobytes() == here.tobytes()


def test_an_artifact_is_deployed_with_the_boards_own_engine(arm, artifact):
    done = edge("deploy", artifact, arm.name, "--json")
    told = json.loads(done.stdout)
    assert told["passed"], done.stderr
    assert "Raspberry Pi 4" in told["board"]
    assert "emulated" in told["board"]
    assert "litert" not in told["copied"]


def test_emulated_times_are_not_reported(arm, artifact):
    few = {"name": "published", "runs": 2, "pause_s": 0}
    setup = Setup(id="m", title="m", artifact=artifact, protocol=few, host=arm.name)
    rows = rows_of(measure_on({arm.name: Board(arm.name)}, {arm.name: [setup]}, rounds=1))
    assert rows[0].status == "ok", rows[0]
    assert rows[0].machine["board"].startswith("Raspberry Pi 4")
    assert any("times are not" in doubt.what for doubt in findings(rows))


def test_a_throttling_pi_and_a_jetson_are_seen_from_here(boards, monkeypatch):
    weak = RASPBERRY_PI_4.with_files(vcgencmd("0x50005"))
    for face, name, word in ((weak, "weak", "under-voltage"), (JETSON_NANO, "nano", "power mode is MAXN")):
        board = boards(face, name=name)
        monkeypatch.setenv("EDGE_SSH", f"ssh -F {board.config}")
        told = remote_facts(board.name)
        whats = [one.what for one in examine_board(snapshot_of_board(told))]
        assert any(word in what for what in whats), whats
        assert "this processor is emulated" in whats


def test_throttling_that_came_and_went_while_it_was_measured_is_a_doubt(boards, monkeypatch, tmp_path):
    board = boards(RASPBERRY_PI_4.with_files(throttling_vcgencmd("0x0", "0x50000")), name="weak")
    monkeypatch.setenv("EDGE_SSH", f"ssh -F {board.config}")
    (tmp_path / "m.null").write_bytes(b"x")
    done = edge(
        *("bench", tmp_path / "m.null", "--on", board.name),
        *("--protocol", "published", "--runs", "2", "--rounds", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert "weak: the board throttled: throttled, under-voltage" in done.stdout


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 300)
def test_the_table_has_the_same_answers_there(arm, data):
    done = edge(
        "table", "--setup", "tflite-int8", "--setup", "tflite-2019", "--json", "--on", arm.name, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    rows = {row["id"].split("@")[0]: row for row in json.loads(done.stdout) if row["kind"] == "measured"}
    int8, uint8 = rows["tflite-int8-1t"], rows["tflite-2019-1t"]
    assert {row["source"] for row in rows.values()} == {"emulated"}
    assert {row["time_s"] for row in rows.values()} == {None}
    assert {row["top1"] for row in rows.values()} == {"magpie"}
    assert int8["beside_here"]["differing"] == 0
    assert uint8["beside_here"]["same_top1"] == uint8["beside_here"]["pictures"]
    assert uint8["beside_here"]["max_steps"] <= 8  # tests/boards/test_same_answers.py has the reason
