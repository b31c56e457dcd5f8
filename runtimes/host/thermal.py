"""Temperature, throttling, power mode and GPU clock. Results from a throttled machine are not comparable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from runtimes.host.files import entries, program_output, read_int, read_text
from runtimes.host.schema import GpuClock, PowerMode, Throttling

_CPU_SENSORS = frozenset(("coretemp", "k10temp", "zenpower", "cpu_thermal"))
_PLAUSIBLE_C = (-40.0, 150.0)  # disabled sensors report -274 or 255
# Bit n is "now", bit n + 16 "since boot": https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_PI_FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


class Temperature(NamedTuple):
    """One sensor's reading."""

    celsius: float
    sensor: str


def temperature(root: Path = Path("/")) -> Temperature | None:
    """Return the hottest sensor of the thermal zones, else of the CPU; None if none can be read."""
    zones = [
        (zone / "temp", read_text(zone / "type") or zone.name)
        for zone in entries(root / "sys/class/thermal", "thermal_zone*")
    ]
    return _hottest(zones) or _hottest(_cpu_sensors(root))


def throttling(root: Path = Path("/")) -> Throttling | None:
    """Return throttling indicators; None if the machine does not report any.

    source: "vcgencmd" (Raspberry Pi) or "thermal_throttle" (x86).
    now: Raspberry Pi: current flags, such as ["under-voltage"].
    since_boot: Raspberry Pi: flags that were set at any time since boot.
    events: x86: throttle events of cores and packages since boot. Compare before and after.
    """
    word = program_output(root, "vcgencmd", "get_throttled") or ""
    match = re.fullmatch(r"throttled=(0x[0-9a-fA-F]+)", word)
    if match:
        bits = int(match.group(1), 16)
        now, since_boot = _flag_names(bits), _flag_names(bits >> 16)
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


def _flag_names(bits: int) -> list[str]:
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


def power_mode(root: Path = Path("/")) -> PowerMode | None:
    """Return {"id", "name"} of the mode set by `nvpmodel`; None if the machine has no such modes.

    The name is None if only root may query it; then only the file with the id is readable.
    """
    named = power_mode_of(program_output(root, "nvpmodel", "-q") or "")
    if named:
        return named
    status = re.search(r"pmode:\s*(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    return {"id": int(status.group(1)), "name": None} if status else None


def power_mode_of(output: str) -> PowerMode | None:
    """Parse the output of `nvpmodel -q`."""
    match = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)", output)
    return {"id": int(match.group(2)), "name": match.group(1)} if match else None


def gpu_clock(root: Path = Path("/")) -> GpuClock | None:
    """Return {"now_mhz", "min_mhz", "max_mhz", "fixed"} of a Jetson's GPU; `jetson_clocks` pins it to its maximum."""
    for device in entries(root / "sys/class/devfreq", "*"):
        if not re.search(r"gpu|gp10b|gv11b|ga10b|gm20b", device.name):
            continue
        low, high, now = (read_int(device / f"{name}_freq") for name in ("min", "max", "cur"))
        if low is not None and high is not None:
            mhz = now and now / 1e6
            return {"now_mhz": mhz, "min_mhz": low / 1e6, "max_mhz": high / 1e6, "fixed": low == high}
    return None
