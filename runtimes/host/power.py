"""Power from Texas Instruments' INA sensors, which Jetsons have built in and other boards can be wired to.

The sensors report instantaneous power, so a thread samples them ten times a second and integrates. A reading is an I2C
transfer of under a millisecond during which the thread sleeps: some 0.5 % of one core.

Their files on Linux:
  JetPack 4:     /sys/bus/i2c/drivers/ina3221x/*/iio:device*/{rail_name_N, in_powerN_input}, mW
  JetPack 5, 6, and any mainline kernel:  /sys/class/hwmon/hwmon*/{inN_label, inN_input, currN_input}, mV and mA,
                 or power1_input, uW, of a sensor with one channel
https://docs.nvidia.com/jetson/archives/r35.2.1/DeveloperGuide/text/SD/PlatformPowerAndPerformance.html
https://docs.kernel.org/hwmon/ina3221.html https://docs.kernel.org/hwmon/ina2xx.html
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from runtimes.host.files import entries, read_int, read_text

EVERY_S = 0.1
# Input rails, which carry all of a board's power: the other rails branch off them and would be counted twice.
WHOLE = ("POM_5V_IN", "VDD_IN", "5V_IN")


@dataclass(frozen=True)
class Rail:
    """A sensor channel: the files whose product is its power, and the unit of that product in watts."""

    name: str
    files: tuple[Path, ...]
    unit_w: float

    def watts(self) -> float | None:
        """Return the current power; None if the sensor does not respond."""
        product = self.unit_w
        for file in self.files:
            value = read_int(file)
            if value is None:
                return None
            product *= value
        return product


def power_rails(root: Path = Path("/")) -> list[Rail]:
    """Return the rails that add up to the board's power: its input rail if that has a sensor, else all rails."""
    rails = [rail for rail in [*_iio(root), *_hwmon(root)] if rail.watts() is not None]
    return [rail for rail in rails if rail.name in WHOLE][:1] or rails


def _iio(root: Path) -> list[Rail]:
    return [
        Rail(read_text(name) or name.name, (name.with_name(f"in_power{name.name[len('rail_name_') :]}_input"),), 1e-3)
        for name in entries(root / "sys/bus/i2c/drivers/ina3221x", "*/iio:device*/rail_name_*")
    ]


def _hwmon(root: Path) -> list[Rail]:
    rails = []
    for chip in entries(root / "sys/class/hwmon", "hwmon*"):
        kind = read_text(chip / "name") or ""
        if not kind.startswith("ina"):
            continue
        if (chip / "power1_input").exists():
            rails.append(Rail(kind, (chip / "power1_input",), 1e-6))
            continue
        # The three channels of an ina3221; higher numbers are sums and shunt voltages.
        for current in entries(chip, "curr[1-3]_input"):
            voltage = chip / current.name.replace("curr", "in")
            label = read_text(voltage.with_name(voltage.name.replace("_input", "_label"))) or kind
            if voltage.exists():
                rails.append(Rail(label, (voltage, current), 1e-6))
    return rails


class PowerSampler:
    """Integrates the power of some rails from construction until `joules` is called."""

    def __init__(self, rails: Sequence[Rail], every_s: float = EVERY_S) -> None:
        self._rails, self._every_s = rails, every_s
        self._over = threading.Event()
        self._readings: list[tuple[float, float]] = []  # seconds, watts
        self._read()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def joules(self) -> float | None:
        """Return the energy so far by the trapezoidal rule; None if the sensors stopped responding."""
        self._over.set()
        self._thread.join()
        self._read()
        pairs = list(zip(self._readings, self._readings[1:]))
        return sum((end - start) * (first + last) / 2 for (start, first), (end, last) in pairs) if pairs else None

    def _sample(self) -> None:
        while not self._over.wait(self._every_s):
            self._read()

    def _read(self) -> None:
        values = [rail.watts() for rail in self._rails]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            self._readings.append((time.perf_counter(), sum(known)))
