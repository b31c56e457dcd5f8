"""Read a Jetson's power by shell script while trtexec runs: boards measured with trtexec have no suitable Python.

The INA sensors are those of JetPack 4, see `runtimes.host.power`. Each reading is one line: the board's clock, and
the milliwatts of every rail.
"""

from __future__ import annotations

import time

import numpy as np

from edge.benchmark.energy import Meter
from runtimes.host.power import WHOLE
from runtimes.host.schema import EnergyAnswer

_SENSORS = "/sys/bus/i2c/drivers/ina3221x"
_MARK, _NOW = "edge: power", "now "


def function() -> str:
    """Return the shell function `power`, which prints one reading; only the time if there is no sensor."""
    return f"""
power() {{
  reading=$(date +%s.%N)
  for rail in {_SENSORS}/*/iio:device*/rail_name_*; do
    read -r name < "$rail" && read -r mw < "${{rail%/*}}/in_power${{rail##*rail_name_}}_input" &&
      reading="$reading $name=$mw"
  done 2>/dev/null
  echo "$reading"
}}
"""


def sampling_script(file: str) -> str:
    """Return a script that writes ten readings a second to `file` while the process `$pid` runs (1 % of a core)."""
    return f'(while kill -0 "$pid"; do power; sleep 0.1 || break; done) > {file} 2>/dev/null 3<&- 9>&- &'


def report_script(file: str) -> str:
    """Return a script that prints all readings, a last one, and the board's clock, for `PowerReadings.read_line`."""
    return f'power >> {file}; echo "{_MARK}"; cat {file}; echo "{_NOW}$(date +%s.%N)"'


class PowerReadings:
    """Parses the script's output line by line; the time of arrival relates the board's clock to ours."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, dict[str, float]]] = []
        self._has_mark = False
        self._ahead: float | None = None  # seconds by which this machine's clock is ahead of the board's

    def read_line(self, text: str) -> None:
        """Parse a line; lines before the mark belong to other programs."""
        if text == _MARK:
            self._has_mark = True
        elif self._has_mark and self._ahead is None:
            if text.startswith(_NOW):
                now = _number(text[len(_NOW) :])
                self._ahead = None if now is None else time.time() - now
            else:
                self._add_reading(text)

    def _add_reading(self, text: str) -> None:
        moment, *rails = text.split()
        watts = {name: _number(mw) for name, _, mw in (rail.partition("=") for rail in rails)}
        when = _number(moment)
        if when is not None and watts and None not in watts.values():
            self._readings.append((when, {name: mw / 1000 for name, mw in watts.items() if mw is not None}))

    def energy(self, began: float | None, seconds: float | None) -> EnergyAnswer:
        """Return {"energy_j", "energy_source", "energy_note"} of a loop; `began` is on this machine's clock."""
        if began is None or seconds is None or self._ahead is None or not self._readings:
            return _no_energy("trtexec took the measurement, and the board has no INA sensor")
        names = [name for name in WHOLE if name in self._readings[0][1]][:1] or list(self._readings[0][1])
        moments = np.array([when + self._ahead for when, _ in self._readings])
        watts = np.array([sum(rails.get(name, np.nan) for name in names) for _, rails in self._readings])
        # The last reading was taken after trtexec ended: a line that arrives late must not move the end past it.
        end = min(began + seconds, moments[-1])
        joules = Meter("", moments, watts).joules(end - seconds, end)
        if joules is None or not np.isfinite(joules):
            return _no_energy("the board's power sensors stopped reporting")
        return {"energy_j": joules, "energy_source": "ina: " + ", ".join(names), "energy_note": None}


def _no_energy(note: str) -> EnergyAnswer:
    return {"energy_j": None, "energy_source": None, "energy_note": note}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
