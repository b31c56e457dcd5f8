"""INA sensors, as JetPack 4, JetPack 5 and mainline kernels show them in files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Mapping

import pytest

from runtimes import host
from runtimes.host.power import PowerSampler, Rail, power_rails

NANO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
ORIN = "sys/class/hwmon/hwmon3"


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    rails = {"POM_5V_GPU": 40, "POM_5V_IN": 2840, "POM_5V_CPU": 480}
    files = {f"{NANO}/rail_name_{place}": name for place, name in enumerate(rails)}
    return write(tmp_path, {**files, **{f"{NANO}/in_power{n}_input": str(mw) for n, mw in enumerate(rails.values())}})


def orin(root: Path, labels: Mapping[str, tuple[int, int]]) -> Path:
    files = {f"{ORIN}/name": "ina3221", f"{ORIN}/in7_label": "sum of shunt voltages", f"{ORIN}/in7_input": "1"}
    files[f"{ORIN}/in4_input"], files[f"{ORIN}/curr4_input"] = "2000", "3000"  # a shunt's voltage; the sum of currents
    for place, (label, (millivolts, milliamps)) in enumerate(labels.items(), 1):
        files[f"{ORIN}/in{place}_label"] = label
        files[f"{ORIN}/in{place}_input"] = str(millivolts)
        files[f"{ORIN}/curr{place}_input"] = str(milliamps)
    return write(root, files)


def told(root: Path) -> dict[str, float]:
    return {rail.name: rail.watts() or 0.0 for rail in power_rails(root)}


def test_the_input_of_a_nano_is_all_that_it_draws(nano: Path) -> None:
    assert told(nano) == {"POM_5V_IN": pytest.approx(2.84)}
    energy = host.facts(nano)["energy"]
    assert energy == {"source": "ina", "readable": True, "reason": None, "rails": ["POM_5V_IN"]}


def test_newer_kernels_tell_volts_and_amps(tmp_path: Path) -> None:
    assert told(orin(tmp_path, {"VDD_IN": (4920, 1000), "VDD_CPU_GPU_CV": (4920, 300)})) == {
        "VDD_IN": pytest.approx(4.92)
    }


def test_rails_without_a_common_input_are_added_up(tmp_path: Path) -> None:
    root = orin(tmp_path, {"GPU": (19000, 100), "CPU": (19000, 50)})
    assert told(root) == {"GPU": pytest.approx(1.9), "CPU": pytest.approx(0.95)}
    start = time.perf_counter()
    joules = PowerSampler(power_rails(root), every_s=60).joules()
    assert joules is not None
    assert 0 < joules <= (time.perf_counter() - start) * (1.9 + 0.95)


def test_a_sensor_of_one_channel_tells_microwatts(tmp_path: Path) -> None:
    write(tmp_path, {f"{ORIN}/name": "ina226", f"{ORIN}/power1_input": "5100000", f"{ORIN}/curr1_input": "1"})
    write(tmp_path, {"sys/class/hwmon/hwmon0/name": "coretemp", "sys/class/hwmon/hwmon0/power1_input": "1"})
    assert told(tmp_path) == {"ina226": pytest.approx(5.1)}


def test_energy_is_power_over_time(nano: Path) -> None:
    start, meter = time.perf_counter(), host.EnergyMeter(nano)
    time.sleep(0.25)
    found = meter.finish()
    spent = time.perf_counter() - start
    assert 0.24 * 2.84 < found["energy_j"] <= spent * 2.84
    assert (found["energy_source"], found["energy_note"]) == ("ina: POM_5V_IN", None)


def test_a_power_that_rises_is_followed(tmp_path: Path) -> None:
    write(tmp_path, {"power": "1000"})
    sampler = PowerSampler([Rail("r", (tmp_path / "power",), 1e-3)], every_s=0.01)
    (tmp_path / "power").write_text("9000")
    while sampler._readings[-1][1] != 9:  # only now does what is measured count
        time.sleep(0.01)
    time.sleep(0.2)
    joules = sampler.joules()
    assert joules is not None
    assert joules > 0.2 * 9  # the higher half counts as such


def test_a_sensor_that_stops_sending_leaves_a_note(nano: Path) -> None:
    meter = host.EnergyMeter(nano)
    meter._sampler._readings.clear()  # type: ignore[union-attr]
    (nano / NANO / "in_power1_input").unlink()
    found = meter.finish()
    assert found["energy_j"] is None
    assert "stopped responding" in found["energy_note"]


def test_where_there_is_neither_counter_nor_sensor_the_note_says_so(tmp_path: Path) -> None:
    found = host.EnergyMeter(tmp_path).finish()
    assert found["energy_j"] is None
    assert "no INA sensor" in found["energy_note"]
