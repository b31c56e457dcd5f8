"""Heat, and what the machine does about it: a measurement on a throttled machine measures its cooling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from runtimes.host.files import entries, program_output, read_int, read_text

_CPU_SENSORS = frozenset(("coretemp", "k10temp", "zenpower", "cpu_thermal"))
_PLAUSIBLE_C = (-40.0, 150.0)  # sensors that are switched off report -274 or 255
# Bit n is "now", bit n + 16 "since boot": https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_PI_FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


class Temperature(NamedTuple):
    """One sensor's reading."""

    celsius: float
    sensor: str


def temperature(root: Path = Path("/")) -> Temperature | None:
    """The hottest sensor: of the thermal zones, else of the CPU; None where none can be read."""
    zones = [
        (zone / "temp", read_text(zone / "type") or zone.name)
        for zone in entries(root / "sys/class/thermal", "thermal_zone*")
    ]
    return _hottest(zones) or _hottest(_cpu_sensors(root))


def throttling(root: Path = Path("/")) -> dict[str, Any] | None:
    """Signs that the machine has slowed itself down; None where it does not tell.

    source      "vcgencmd" (Raspberry Pi) or "thermal_throttle" (x86)
    now         Raspberry Pi: flags of this moment, such as ["under-voltage"]
    since_boot  Raspberry Pi: flags that have been up since boot
    events      x86: how often cores and packages have throttled since boot. Compare before and after.
    """
    word = program_output(root, "vcgencmd", "get_throttled") or ""
    match = re.fullmatch(r"throttled=(0x[0-9a-fA-F]+)", word)
    if match:
        bits = int(match.group(1), 16)
        now, since_boot = _raised(bits), _raised(bits >> 16)
        return {"source": "vcgencmd", "now": now, "since_boot": since_boot, "events": None}
    events = _throttle_events(root)
    if events is not None:
        return {"source": "thermal_throttle", "now": [], "since_boot": [], "events": events}
    return None


def _cpu_sensors(root: Path) -> list[tuple[Path, str]]:
    chips = [(chip, read_text(chip / "name")) for chip in entries(root / "sys/class/hwmon", "hwmon*")]
    return [(path, name) for chip, name in chips if name in _CPU_SENSORS for path in entries(chip, "temp*_input")]


def _hottest(sensors: list[tuple[Path, str]]) -> Temperature | None:
    readings = []
    for path, name in sensors:
        millidegrees = read_int(path)
        if millidegrees is not None and _PLAUSIBLE_C[0] < millidegrees / 1000 < _PLAUSIBLE_C[1]:
            readings.append(Temperature(millidegrees / 1000, name))
    return max(readings, default=None)


def _raised(bits: int) -> list[str]:
    return [name for bit, name in _PI_FLAGS.items() if bits >> bit & 1]


def _throttle_events(root: Path) -> int | None:
    cores, packages = [], {}
    for cpu in entries(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        core = read_int(cpu / "thermal_throttle/core_throttle_count")
        package = read_int(cpu / "thermal_throttle/package_throttle_count")
        if core is not None:
            cores.append(core)
        if package is not None:  # every core repeats its package's count
            packages[read_text(cpu / "topology/physical_package_id")] = package
    return sum(cores) + sum(packages.values()) if cores or packages else None
