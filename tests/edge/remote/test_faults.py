"""Failures of the connection to a board: one line each, no sample lost, and the next run recovers."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import FEW, edge
from proxy import Proxy
from test_bench_on import is_clean

from edge.benchmark import Setup, measure_all, rows_of
from edge.remote import board as board_module
from edge.remote import ssh
from edge.remote.board import Board
from edge.remote.fleet import measure_on
from edge.remote.ssh import ConnectionLostError
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest, TensorSpec
from runtimes.errors import HostError, RefusedError

LONG = {"name": "published", "runs": 1_000_000, "pause_s": 0}


@pytest.fixture
def proxy(board, tmp_path):
    """The board behind a line that can be spoilt."""
    with Proxy(board.port) as spoilt:
        config = tmp_path / "ssh_config"
        text = config.read_text().replace(f"Port {board.port}", f"Port {spoilt.port}")
        config.write_text(text)
        known = board.known_hosts
        known.write_text(known.read_text().replace(f":{board.port} ", f":{spoilt.port} "))
        yield spoilt


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.null"
    path.write_bytes(b"x" * 3_000_000)
    return path


@pytest.fixture
def slow(tmp_path):
    """A model of some 0.1 ms that does nothing but copy its input."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "slow.null").write_bytes(b"x")
    manifest = Manifest("slow", "null", "fp32", "slow.null", inputs=(TensorSpec("x", "float32", (250_000,)),))
    artifacts.write(folder, manifest, {"x": np.zeros((1, 1))}, {"x": np.zeros((1, 1))})
    return folder


def measured(board, model, protocol=FEW, **options):
    setup = Setup(id="m", title="m", artifact=model, protocol=protocol, host=board.name)
    place = Board(board.name)
    return rows_of(measure_on({board.name: place}, {board.name: [setup]}, rounds=1, **options))[0]


def after_samples(board, do):
    """Do it, in a thread, as soon as 200 samples lie on the board."""

    def wait():
        for _ in range(600):
            files = (board.home / ".edgeproof/kept").glob("*/*/*.times")
            if any(np.count_nonzero(np.fromfile(file, np.int64)) > 200 for file in files):
                break
            time.sleep(0.1)
        do()

    threading.Thread(target=wait, daemon=True).start()


def test_a_copy_that_is_cut_leaves_nothing_and_is_made_again(proxy, board, model):
    with Board(board.name) as place:
        proxy.cut_after = proxy._sent + 500_000
        with pytest.raises(ConnectionLostError, match="was lost"):
            place.installer.artifact(model)
    assert not (board.home / ".edgeproof/artifacts").exists()
    assert measured(board, model).status == "ok"
    assert not list((board.home / ".edgeproof").glob(".part-*"))


def test_a_line_that_is_cut_in_a_measurement_keeps_the_samples(proxy, board, slow):
    def cut(setup, number, phase):
        if phase == "measuring":
            after_samples(board, proxy.cut)

    row = measured(board, slow, LONG, on_progress=cut)
    assert row.status == "host failed"
    assert "was lost" in row.message
    assert len(row.samples_ms) > 100
    assert row.rounds[0].runs == len(row.samples_ms)
    assert is_clean(board)


def test_samples_wait_on_the_board_for_the_next_connection(proxy, board, model, slow, monkeypatch):
    monkeypatch.setattr(board_module, "RETRIES_S", ())

    def cut(setup, number, phase):
        if phase == "measuring":
            after_samples(board, proxy.cut)

    row = measured(board, slow, LONG, on_progress=cut)
    assert (row.status, list(row.samples_ms)) == ("host failed", [])
    given = []
    measured(board, model, on_leftovers=lambda host, left: given.extend(left))
    (left,) = given
    assert len(left["values"]["samples_ms"]) > 100
    assert left["job"]["protocol"]["runs"] == 1_000_000
    assert is_clean(board)


def test_a_board_that_dies_is_waited_for_once_and_the_other_setups_fail_at_once(proxy, board, slow, monkeypatch):
    monkeypatch.setattr(board_module, "RETRIES_S", (0.0, 0.1, 0.1))
    tried = []
    connect = ssh.SshConnection.connect
    monkeypatch.setattr(ssh.SshConnection, "connect", lambda line: (tried.append(line), connect(line)))

    def die(setup, number, phase):
        if phase == "measuring":
            proxy.die()

    setups = [Setup(id=name, title=name, artifact=slow, protocol=LONG, host=board.name) for name in "abcd"]
    found = measure_on({board.name: Board(board.name)}, {board.name: setups}, rounds=2, on_progress=die)
    rows = rows_of(found)
    assert [row.status for row in rows] == ["host failed"] * 4
    assert {row.message for row in rows[1:]} == {"board is reachable, but no ssh server answers"}
    assert len(tried) == 1 + 3


def test_a_board_that_reboots_while_it_measures_keeps_the_samples(board, slow):
    def reboot():
        board.power.off()
        time.sleep(1.0)
        board.power.on()

    def begin(setup, number, phase):
        if phase == "measuring":
            after_samples(board, reboot)

    row = measured(board, slow, LONG, on_progress=begin)
    assert row.status == "host failed"
    assert len(row.samples_ms) > 100
    assert is_clean(board)


def test_a_line_that_delays_changes_nothing_but_the_time(proxy, board, model):
    proxy.delay_s = 0.02
    assert measured(board, model).status == "ok"


def workers(board):
    """The processes on the board that measure: Linux tells a process of any namespace by where it works."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:3] == [b"-m", b"runtimes.worker"] and (process / "cwd").readlink() == board.home / ".edgeproof":
                found.append(process.name)
    return found


def test_a_line_that_stalls_is_given_up_and_the_worker_ends(proxy, board, slow, model, monkeypatch):
    monkeypatch.setattr(ssh, "ALIVE_EVERY_S", 1)
    monkeypatch.setattr(ssh, "ALIVE_MISSED", 6)  # a busy machine is not silent for so long
    monkeypatch.setattr(board_module, "RETRIES_S", ())

    def stall(setup, number, phase):
        if phase == "measuring":
            after_samples(board, lambda: setattr(proxy, "stalled", True))

    row = measured(board, slow, LONG, on_progress=stall)
    assert row.status == "host failed"
    assert len(workers(board)) == 1
    proxy.stalled = False  # only now can the board see that we have left
    for _ in range(300):
        if not workers(board):
            break
        time.sleep(0.1)
    assert workers(board) == []
    given = []
    measured(board, model, on_leftovers=lambda host, left: given.extend(left))
    (left,) = given
    assert len(left["values"]["samples_ms"]) > 100


def test_a_client_that_stops_sending_counts_as_disconnected(board):
    """What a cut line looks like on the board: no end of stdin, and no sign of life."""
    with Board(board.name) as place:
        words = place._agent_command(["hold", "~/.edgeproof", "silent", "0.5"], [])
        command = place.line.command(words)
        place._hold.stdin.close()
        place._hold.wait()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
            assert b"held" in next(ssh.skip_shell_banner(silent.stdout))
            assert silent.wait(30) == 0


def test_ctrl_c_leaves_nothing_running(board, slow):
    command = ["-m", "edge", "bench", slow, "--on", board.name, "--protocol", "published", "--runs", "1000000"]
    with subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        for _ in range(600):
            if list((board.home / ".edgeproof/kept").glob("*/*/*.times")):
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode == 130
    for _ in range(600):
        if not list((board.home / ".edgeproof/kept").glob("*/workers")):
            break
        time.sleep(0.1)
    assert not list((board.home / ".edgeproof/kept").glob("*/workers"))


def test_an_engine_that_crashes_is_a_row_with_the_signal(board, model, monkeypatch, tmp_path):
    with Board(board.name) as place:
        folder = board.home / place._runtimes
        (folder / "moody.py").write_text(
            "import ctypes\nfrom runtimes.worker import serve\n"
            "serve({'measure': lambda job, report: ctypes.string_at(0)})\n"
        )
        setup = Setup(id="m", title="m", artifact=model, protocol=FEW, host=board.name, worker="moody")
        (found,) = measure_all([setup], 1, 60.0, place=place)
    assert found.values["status"] == "crashed"
    assert "SIGSEGV" in found.values["message"]
    assert "m.null" in found.values["message"]


def test_a_worker_that_hangs_runs_out_of_its_time_there(board, slow):
    for limit_s in (5.0, 20.0, 60.0):  # a busy machine needs longer to begin
        row = measured(board, slow, LONG, timeout_s=limit_s)
        assert row.status == "timeout"
        if len(row.samples_ms) > 100:
            return
    pytest.fail("no samples were kept of a minute")


def test_a_clock_that_jumps_changes_no_sample(board, model):
    """Boards without a battery get the time from the network, in the middle of anything."""
    with Board(board.name) as place:
        folder = board.home / place._runtimes
        (folder / "sitecustomize.py").write_text(
            "import time\nreal = time.time\nstart = time.monotonic()\n"
            "time.time = lambda: real() - 1e9 * ((time.monotonic() - start) > 0.2)\n"
        )
        setup = Setup(id="m", title="m", artifact=model, protocol={"name": "steady", "max_s": 1.0}, host=board.name)
        (found,) = measure_all([setup], 1, 60.0, place=place)
    assert found.is_ok
    assert min(found.values["samples_ms"]) >= 0
    assert found.values["total_s"] < 60


def test_a_full_disk_is_reported_and_recovers(boards, installed, model):
    board = boards(engines=installed)
    with Board(board.name) as place:
        # The board's own limit of a file's size stands in for its disk: the write fails in the middle.
        real = place.python.path
        full = board.home / "python"
        full.write_text(f'#!/bin/sh\nulimit -f 1000\nexec {real} "$@"\n')
        full.chmod(0o755)
        object.__setattr__(place.installer._python, "path", str(full))
        with pytest.raises(HostError, match=r"File too large|disk is full"):
            place.installer.artifact(model)
    assert not list((board.home / ".edgeproof").glob("*/.part-*"))
    assert not (board.home / ".edgeproof/artifacts").exists()
    assert measured(board, model).status == "ok"


def full(shell, boards, *places, home="$HOME", **options):
    """A board on which nothing more can be written in some places: file systems without a free inode."""
    mounts = "".join(f'mount -t tmpfs -o size=4k,nr_inodes=1 full "{place}" && ' for place in places)
    inside = f'{mounts}export HOME="{home}" && cd && exec /bin/sh "$@"'
    shell.write_text(f"#!/bin/sh\nexec unshare -U -r -m /bin/sh -c '{inside}' sh \"$@\"\n")
    shell.chmod(0o755)
    return boards(shell=str(shell), **options)


def test_a_board_whose_disk_is_full_is_looked_at_all_the_same(boards, tmp_path):
    board = full(tmp_path / "shell", boards, "/tmp", "/var/tmp", home="/var/tmp")
    done = edge("doctor", "--on", board.name)
    assert "only 0 MiB are free" in done.stdout, done.stderr


def test_a_board_whose_disk_has_no_room_for_a_session_says_so(boards, installed, tmp_path, model):
    kept = "$HOME/.edgeproof/kept"
    board = full(tmp_path / "shell", boards, kept, engines=installed)
    (board.home / ".edgeproof/kept").mkdir()
    row = measured(board, model)
    assert row.status == "host failed"
    assert "cannot be locked for measuring" in row.message
    assert "No space left on device" in row.message
    assert row.hint == "make room on the board's disk"


def test_a_copy_of_other_bytes_is_not_put_in_place(board, model):
    with Board(board.name) as place:
        from edge.remote.install import archive

        wrong = archive([("m.null", model)], compressed=False)
        with pytest.raises(HostError, match="differs from what was sent"):
            place.installer._copy("artifacts/wrong", "0" * 64, wrong)
    assert not (board.home / ".edgeproof/artifacts/wrong").exists()


def test_half_a_copy_of_a_killed_process_is_removed_by_the_next(board, model):
    part = board.home / ".edgeproof" / f".part-{2**22 + 1}-x"  # no process has such a number
    part.mkdir(parents=True)
    assert measured(board, model).status == "ok"
    assert not part.exists()


def with_bin(boards, tmp_path, **programs):
    """A board on which programs are replaced."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return boards(environment={"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"})


def test_a_board_without_a_new_enough_python_says_what_to_install(boards, tmp_path, artifact):
    names = ("python3", *(f"python3.{minor}" for minor in range(8, 14)))
    board = with_bin(boards, tmp_path, **dict.fromkeys(names, "exit 1"))
    done = edge("deploy", artifact, board.name)
    assert done.returncode == HostError.exit_code
    assert "it has no Python" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_processor_that_no_engine_is_built_for_is_reported(boards, tmp_path, artifact):
    board = with_bin(boards, tmp_path, uname="echo riscv32")
    done = edge("deploy", artifact, board.name, "--offline", "--json")
    assert done.returncode == HostError.exit_code
    told = json.loads(done.stderr.splitlines()[-1])
    assert "cannot be fetched for Python" in told["message"]
    assert "riscv32" in told["message"]
    assert not list((board.home / ".edgeproof").glob("engines/*"))


def test_an_engine_that_no_board_takes_is_refused(board, artifact):
    with Board(board.name) as place, pytest.raises(RefusedError, match="cannot be deployed"):
        place.installer.engine("browser")


def test_the_parent_leaves_no_connection_behind(board, model, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="e") as folder:  # of this test alone; short, as a socket's path has to be
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert measured(board, model).status == "ok"
        assert list(Path(folder).glob("edge-ssh-*")) == []
