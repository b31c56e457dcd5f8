"""The clocks and the power mode of a board without a suitable Python, also in the rows of trtexec."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edge.benchmark import findings, rows_of
from edge.benchmark.harness import Measurement, Setup
from edge.remote import conditions
from runtimes import host

NANO_5W = {
    "proc/loadavg": "0.25 0.1 0.1 1/200 1234\n",
    "proc/meminfo": "MemTotal:        4058000 kB\n",
    "proc/sys/kernel/arch": "aarch64\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "918000\n",
    "sys/class/devfreq/57000000.gpu/min_freq": "76800000\n",
    "sys/class/devfreq/57000000.gpu/max_freq": "640000000\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "76800000\n",
    "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "var/lib/nvpmodel/status": "pmode:0001",
}


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    for name, text in NANO_5W.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def printed(root: Path, **environment: str) -> str:
    command = ["sh", "-c", conditions.script(str(root))]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment or None).stdout


def test_the_script_has_what_the_reader_on_the_board_reads(nano: Path) -> None:
    state = conditions.read(printed(nano), "aarch64")
    assert state.conditions == host.conditions(nano)
    assert state.conditions["governor"] == "schedutil"
    assert state.conditions["gpu_clock"] == {"now_mhz": 76.8, "min_mhz": 76.8, "max_mhz": 640.0, "fixed": False}
    assert state.conditions["power_mode"] == {"id": 1, "name": None}
    assert state.conditions["load_average"] == 0.25
    assert state.memory_bytes == 4058000 * 1024
    assert not state.emulated


def test_the_power_mode_has_a_name_where_nvpmodel_tells_it(nano: Path) -> None:
    tool = nano / "bin" / "nvpmodel"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NV Fan Mode:quiet'\necho 'NV Power Mode: 5W'\necho 1\n")
    tool.chmod(0o755)
    state = conditions.read(printed(nano, PATH=f"{tool.parent}:/usr/bin:/bin"), "aarch64")
    assert state.conditions["power_mode"] == {"id": 1, "name": "5W"}


def test_a_board_that_has_none_of_these_files_is_unknown(tmp_path: Path) -> None:
    state = conditions.read(printed(tmp_path), "aarch64")
    assert set(state.conditions.values()) == {None}


def test_a_name_cannot_leave_the_folder() -> None:
    state = conditions.read("edge: file /../../../../tmp/edge-escaped\nx\nedge: nvpmodel\n", "aarch64")
    assert state.memory_bytes is None
    assert not Path("/tmp/edge-escaped").exists()


def test_a_row_in_a_saving_mode_with_a_free_clock_is_doubted_with_the_remedy(nano: Path) -> None:
    found = conditions.read(printed(nano), "aarch64").conditions
    values = {
        "status": "ok",
        "samples_ms": [10.0] * 20,
        "machine": {"board": "NVIDIA Jetson Nano", "emulated": False},
        "conditions": {"before": found, "after": found},
    }
    row = rows_of([Measurement(setup=Setup(id="m", title="m", artifact=nano, host="nano"), round=0, values=values)])
    doubts = {one.what: one.remedy for one in findings(row)}
    assert "nvpmodel -m 0" in doubts["nano: the power mode is number 1, in which cores and clocks are limited"]
    assert doubts["nano: the GPU's clock moves between 77 and 640 MHz"] == "sudo jetson_clocks"
