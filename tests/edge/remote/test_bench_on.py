"""`edge bench --on`: a board is measured like this machine, and the rows describe the board."""

import json
import subprocess
import threading
import time

import numpy as np
import pytest
from conftest import FEW, edge

from edge.benchmark import Setup, rows_of
from edge.remote.board import Board
from edge.remote.facts import remote_facts
from edge.remote.fleet import distinct, measure_on
from edge.remote.ssh import SshConnection
from edge.workers.process import run_job
from runtimes.arrays import load_arrays
from runtimes.errors import UsageError
from runtimes.jobs import RunJob

QUICK = ("--protocol", "published", "--runs", "5", "--rounds", "2", "--threads", "1")


def is_clean(board):
    """Whether nothing of a session is left on the board, neither files nor processes; it gets a minute for it.

    Whoever leaves gives the board three seconds to clean up. A busy one goes on cleaning after that.
    """
    kept = board.home / ".edgeproof" / "kept"
    for _ in range(600):
        if not kept.exists() or list(kept.iterdir()) == []:
            return True
        time.sleep(0.1)
    return False


def test_a_board_gives_the_rows_that_this_machine_gives(board, artifact):
    there = json.loads(edge("bench", artifact, "--on", board.name, "--json", *QUICK).stdout)
    here = json.loads(edge("bench", artifact, "--json", *QUICK).stdout)
    (far,), (near,) = there, here
    assert set(far) == set(near)
    assert (far["status"], len(far["samples_ms"]), far["host"], near["host"]) == ("ok", 10, board.name, None)
    assert far["raw"] == near["raw"]
    assert far["input"]["sha256"] == near["input"]["sha256"]
    assert far["artifact"] == str(artifact)
    assert is_clean(board)


def test_outputs_are_bit_equal_and_the_worker_stays(board, artifact, tmp_path):
    inputs = artifact / "selfcheck.npz"
    feeds = {name: array for name, array in load_arrays(inputs).items() if name.startswith("input:")}
    np.savez(tmp_path / "in.npz", **{name.removeprefix("input:"): array for name, array in feeds.items()})
    job = RunJob(str(artifact), str(tmp_path / "in.npz"), str(tmp_path / "here.npz"))
    with Board(board.name) as place:
        run_job(job.with_files(outputs=str(tmp_path / "there.npz")), timeout_s=60, place=place)
    run_job(job, timeout_s=60)
    there, here = load_arrays(tmp_path / "there.npz"), load_arrays(tmp_path / "here.npz")
    assert {name: array.tobytes() for name, array in there.items()} == {
        name: array.tobytes() for name, array in here.items()
    }
    assert is_clean(board)


def test_what_a_shells_start_files_print_is_no_answer(boards, installed, tmp_path):
    board = boards(engines=installed, shell="/bin/bash")
    (board.home / ".bashrc").write_text("echo Welcome\necho '{\"died\": 1}'\nprintf 'no newline'\n")
    with SshConnection(board.name) as line:
        if b"no newline" not in subprocess.run(line.command("true"), capture_output=True, check=True).stdout:
            pytest.skip("the bash of this system reads no ~/.bashrc for commands over ssh")
        assert line.read("printf 'a\\000b'") == (0, b"a\0b")
    model = tmp_path / "m.null"
    model.write_bytes(b"x")
    np.savez(tmp_path / "in.npz", x=np.ones((1, 1), np.float32))
    job = RunJob(str(model), str(tmp_path / "in.npz"), str(tmp_path / "out.npz"))
    with Board(board.name) as place:
        run_job(job, timeout_s=60, place=place)
    assert load_arrays(tmp_path / "out.npz")
    assert remote_facts(board.name)["machine"]
    assert is_clean(board)


def test_two_boards_are_measured_and_one_that_is_not_there_is_a_row(boards, installed, tmp_path):
    first, second = boards("first", engines=installed), boards("second", engines=installed)
    model = tmp_path / "m.null"
    model.write_bytes(b"x")
    hosts = [first.name, "nowhere.invalid", second.name]
    setups = {host: [Setup(id=f"{host} m", title=host, artifact=model, protocol=FEW, host=host)] for host in hosts}
    found = measure_on({host: Board(host) for host in hosts}, setups, rounds=2)
    rows = {row.host: row for row in rows_of(found)}
    assert [rows[host].status for host in hosts] == ["ok", "host failed", "ok"]
    assert "is not found" in rows["nowhere.invalid"].message
    assert len(rows["first"].samples_ms) == 10
    assert is_clean(first)
    assert is_clean(second)


def test_a_board_is_measured_by_one_at_a_time(board, tmp_path):
    model = tmp_path / "m.null"
    model.write_bytes(b"x")
    waiting = threading.Event()
    notes = []

    def note(text):
        notes.append(text)
        if "waiting" in text:
            waiting.set()

    second = Board(board.name, note=note)
    with Board(board.name):
        thread = threading.Thread(target=second.connect)
        thread.start()
        assert waiting.wait(60)
    thread.join(60)
    assert second.line.is_open
    second.close()


def test_a_host_named_twice_is_refused():
    with pytest.raises(UsageError, match="named twice"):
        distinct(["a", "b", "a"])
