"""`edge bench --energy-csv`: a meter's file, matched by timestamp."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.benchmark import Setup, rows_of
from edge.benchmark.energy import add_energy, read_meter, wait_for_meter, with_meter
from edge.benchmark.harness import Measurement, _by_our_clock
from edge.cli import main
from runtimes.errors import InputError

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "onnxruntime.onnx"


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "meter.csv"
    path.write_text(text)
    return path


def measured(began_at: float | None, total_s: float, runs: int = 10) -> Measurement:
    values = {
        "status": "ok",
        "samples_ms": [total_s * 1e3 / runs] * runs,
        "began_at": began_at,
        "total_s": total_s,
        "energy_j": None,
        "energy_note": "no counters",
        "load_ms": 1.0,
        "import_ms": 1.0,
        "first_ms": 1.0,
        "peak_rss_bytes": 1,
    }
    return Measurement(setup=Setup(id="a", title="a", artifact=Path("a.onnx")), round=0, values=values)


def row_of(began_at: float | None, path: Path):
    (row,) = rows_of(with_meter([measured(began_at, 2.0)], read_meter(path)))
    return row


def test_the_energy_of_a_loop_is_what_the_meter_told_in_its_time(tmp_path: Path) -> None:
    # 2 W until 102, then it rises to 6 W at 103: 2 + (2 + 4) / 2 * 0.5 + 0.5 * 2 from 101.5 to 103.5
    path = file(tmp_path, "Time,Watts\n100,2\n102,2\n103,6\n105,6\n")
    row = row_of(101.5, path)
    assert row.energy_per_run_j == pytest.approx((0.5 * 2 + 4.0 + 0.5 * 6) / 10)
    assert (row.energy_source, row.energy_note) == ("meter: meter.csv", None)


def test_volts_times_amps_are_watts_and_times_may_be_written_out(tmp_path: Path) -> None:
    stamps = [datetime.fromtimestamp(second, UTC).isoformat() for second in (100, 110)]
    path = file(tmp_path, f"time,volts,amps\n{stamps[1]},5,0.6\n{stamps[0]},5,0.6\n")
    assert row_of(104.0, path).energy_per_run_j == pytest.approx(0.6)


def test_a_meter_that_writes_late_is_waited_for(tmp_path: Path) -> None:
    path = file(tmp_path, "time,watts\n100,2\n101,2\n")
    later = threading.Timer(0.2, path.write_text, ("time,watts\n100,2\n105,2\n",))
    later.start()
    assert wait_for_meter(path, [measured(101.0, 2.0)], timeout_s=20).seconds.tolist() == [100, 105]
    later.join()
    assert wait_for_meter(path, [measured(104.0, 2.0)], timeout_s=0).seconds.tolist() == [100, 105]


def test_a_meter_that_turned_bad_loses_its_energy_and_nothing_else(tmp_path: Path, caplog) -> None:
    kept = [measured(101.0, 2.0)]
    assert add_energy(kept, file(tmp_path, "time,watts\n100,2\nwhat,is\n105,2\n")) == kept
    assert "lacks a time or a power; energy is left out" in caplog.text


@pytest.mark.parametrize("began_at", [99.0, 104.0])
def test_a_file_that_does_not_reach_over_the_loop_measures_nothing(tmp_path: Path, began_at: float) -> None:
    row = row_of(began_at, file(tmp_path, "time,watts\n100,2\n105,2\n"))
    assert row.energy_per_run_j is None
    assert "does not cover the time of the measurement" in row.energy_note


def test_a_last_line_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    assert read_meter(file(tmp_path, "time,watts\n100,2\n105,2\n10")).seconds.tolist() == [100, 105]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "has no header"), ("time,joules\n1,2\n", "time, joules"), ("time,watts\n1,x\n2,3\n", "line 2")],
)
def test_what_is_no_meters_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_meter(file(tmp_path, text))


@pytest.mark.parametrize("command", [["bench", str(MODEL)], ["table"]])
def test_one_meter_does_not_measure_two_boards(tmp_path: Path, capsys, command: list[str]) -> None:
    path = file(tmp_path, "time,watts\n100,2\n105,2\n")
    assert main([*command, "--on", "pi", "--on", "nano", "--energy-csv", str(path)]) == 2
    said = capsys.readouterr().err
    assert "a meter measures one supply line, but 2 boards are named" in said
    assert "one board after another" in said


def test_a_boards_clock_is_set_by_the_quickest_message() -> None:
    assert _by_our_clock(50.0, [1000.4, 1000.1, 1003.0]) == pytest.approx(1050.1)
    assert _by_our_clock(None, [1.0]) is None
    assert _by_our_clock(50.0, []) == 50.0


def test_bench_reads_what_the_meter_has_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    now = time.time()
    path = file(tmp_path, f"time,watts\n{now - 1},3\n{now + 3600},3\n")
    words = ("bench", MODEL, "--protocol", "published", "--runs", "5", "--rounds", "1", "--json")
    command = [sys.executable, "-m", "edge", *map(str, words), "--energy-csv", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["energy_per_run_j"] == pytest.approx(3 * row["total_s"] / 5, rel=1e-3)
