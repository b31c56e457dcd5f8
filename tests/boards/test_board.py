"""The emulated board has what tests rely on: only aarch64 programs, one user, a board's files, host keys, faults."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.boards import faces
from tests.boards.copying import send
from tests.boards.fixtures import Boards
from tests.boards.stand import Board

# `runtimes.host` as it is copied to boards. Nothing else of this project is imported there.
FACTS = "import json; from runtimes import host; print(json.dumps([host.facts(), host.conditions()]))"


def facts_of(board: Board) -> tuple[dict, dict]:
    """What `runtimes.host` sees from within."""
    send(board, "runtimes")
    done = board.ssh(f"python3 -c {json.dumps(FACTS)}")
    assert done.returncode == 0, done.stderr
    machine, conditions = json.loads(done.stdout)
    return machine, conditions


def test_everything_there_is_aarch64_children_too(pi: Board) -> None:
    done = pi.ssh('uname -m; id -un; pwd; python3 -c \'import subprocess; subprocess.run(["uname", "-m"])\'')
    assert done.stdout.split() == ["aarch64", "pi", "/home/pi", "aarch64"], done.stderr


def test_the_status_and_both_streams_come_back(pi: Board) -> None:
    done = pi.ssh("cat; echo told >&2; exit 23", input="fed")
    assert (done.returncode, done.stdout, done.stderr) == (23, "fed", "told\n")


def test_files_come_and_go_by_sftp(pi: Board, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 500)
    for words in ([sent, f"{pi.name}:copy"], [f"{pi.name}:copy", tmp_path / "back"]):
        subprocess.run(["scp", "-q", "-F", pi.config, *words], check=True)
    assert (tmp_path / "back").read_bytes() == (pi.home / "copy").read_bytes() == sent.read_bytes()
    (pi.home / "copy").unlink()


def test_another_host_key_is_refused(boards: Boards) -> None:
    one, two = boards(name="one"), boards(name="two")
    config = one.config.with_name("confused")
    config.write_text(one.config.read_text().replace(f"Port {one.port}", f"Port {two.port}"))
    done = subprocess.run(["ssh", "-F", config, "one", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_a_raspberry_pi_and_a_jetson_stand_side_by_side(boards: Boards) -> None:
    sticks = [faces.CORAL_USB2, faces.MOVIDIUS_USB2]
    pi = boards(faces.RASPBERRY_PI_3B_PLUS.with_files(*sticks), name="pi")
    nano = boards(faces.JETSON_NANO, name="nano")
    machine, conditions = facts_of(pi)
    assert machine["board"]["model"] == "Raspberry Pi 3 Model B Plus Rev 1.3"
    assert "A53" in machine["cpu"]["model"]
    assert machine["memory"]["total_bytes"] == 945_512 * 1024
    assert [(stick["id"], stick["speed_mbps"]) for stick in machine["accelerators"]["usb"]] == [
        ("18d1:9302", 480),
        ("03e7:2485", 480),
    ]
    assert conditions["throttling"]["source"] == "vcgencmd"
    assert conditions["temperature_c"] == pytest.approx(52.6)
    machine, conditions = facts_of(nano)
    assert (machine["board"]["model"], machine["board"]["jetson_l4t"]) == ("NVIDIA Jetson Nano Developer Kit", "32.7.1")
    assert conditions["governor"] == "schedutil"


def test_a_throttling_board_changes_its_flags_between_calls(boards: Boards) -> None:
    board = boards(faces.THROTTLING_PI)
    done = board.ssh("for n in 1 2 3 4; do vcgencmd get_throttled; done; vcgencmd measure_temp")
    flags = [f"throttled={value}" for value in ("0x0", "0x50005", "0x50000", "0x50000")]
    assert done.stdout.split() == [*flags, "temp=81.7'C"]


def test_a_full_disk_is_full_and_nothing_else_is(boards: Boards) -> None:
    board = boards(disk_kb=512)
    done = board.ssh("head -c 2M /dev/zero > much")
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert (board.home / "much").stat().st_size <= 512 * 1024
    assert board.ssh("echo well > /tmp/elsewhere").returncode == 0


def test_a_board_may_lack_python_or_be_another_machine(boards: Boards) -> None:
    bare = boards(faces.RASPBERRY_PI_4.without("python3").with_files(faces.machine("armv7l")), name="bare")
    assert bare.ssh("uname -m; command -v python3 python3.11").stdout.split() == ["armv7l"]


def test_a_board_as_it_comes_has_no_engines(boards: Boards) -> None:
    done = boards(engines=False).ssh("python3 -c 'import numpy'")
    assert "ModuleNotFoundError" in done.stderr


def test_nothing_is_left_when_a_board_is_stopped(boards: Boards, board_root) -> None:
    from tests.boards.stand import standing

    with standing(board_root) as board:
        assert board.ssh("nohup sleep 300 >/dev/null 2>&1 & echo").returncode == 0
        folder, pid = board.config.parent, board.pid
        assert _running_below(pid, "sleep")
    assert not folder.exists()
    assert not _running_below(pid, "sleep")
    assert not Path(f"/proc/{pid}").exists()


def _running_below(pid: int, name: str) -> bool:
    """Whether a process that descends from `pid`, or lives in its namespace, has this word among its arguments."""
    try:
        space = Path(f"/proc/{pid}/ns/mnt").readlink()
    except OSError:
        return False
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/mnt").readlink() == space and name.encode() in (process / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
