import subprocess
import sys
import time

import pytest

from runtimes.host.contention import CpuClock, cores_of_others, cpu_clock


def test_others_are_what_the_machine_did_less_what_we_did():
    before, after = CpuClock(0.0, 100.0, 5.0), CpuClock(10.0, 118.0, 14.0)
    assert cores_of_others(before, after) == pytest.approx(0.9)


def test_rounding_never_makes_them_negative():
    assert cores_of_others(CpuClock(0.0, 0.0, 0.0), CpuClock(1.0, 0.99, 1.0)) == 0.0


def test_too_short_or_unknown_is_none():
    assert cores_of_others(CpuClock(0.0, 0.0, 0.0), CpuClock(0.4, 1.0, 0.4)) is None
    assert cores_of_others(None, CpuClock(1.0, 1.0, 1.0)) is None


def test_idle_and_waiting_time_are_no_work(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  100 1 20 5000 700 3 4 5 60 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    first = cpu_clock(tmp_path)
    (tmp_path / "proc/stat").write_text("cpu  200 2 40 9000 900 6 8 10 60 0\n")
    second = cpu_clock(tmp_path)
    ticks_a_second = 133 / first.machine
    assert (second.machine - first.machine) * ticks_a_second == pytest.approx(133)


@pytest.mark.parametrize("content", ["", "intr 1 2 3", "cpu 1 2 3", "cpu a b c d e f g h i"])
def test_what_cannot_be_read_is_none(content, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(content)
    assert cpu_clock(tmp_path) is None


def test_a_busy_neighbor_is_seen():
    before = cpu_clock()
    if before is None:
        pytest.skip("this system has no /proc/stat")
    busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    time.sleep(0.1)
    seconds = cores_of_others(before, cpu_clock()) * (cpu_clock().wall - before.wall)
    assert seconds > 0.4
