"""A Jetson's power while trtexec runs there, read by a shell: where trtexec measures there is no Python that could.

The INA sensors are those of JetPack 4, see `runtimes.host.power`. Each reading is one line: the board's clock, and
every rail's milliwatts.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edge.bench.energy import Meter
from runtimes.host.power import WHOLE

_SENSORS = "/sys/bus/i2c/drivers/ina3221x"
_MARK, _NOW = "edge: power", "now "


def function() -> str:
    """The shell function `power`: one reading, of nothing but the time where there is no sensor."""
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


def sampling(file: str) -> str:
    """Ten readings a second into `file`, as long as the process `$pid` lives; it costs some 1 % of a core."""
    return f'(while kill -0 "$pid"; do power; sleep 0.1 || break; done) > {file} 2>/dev/null 3<&- 9>&- &'


def telling(file: str) -> str:
    """What `Power.hear` and `Power.joules` read: a last reading, all of them, and what the board's clock says now."""
    return f'power >> {file}; echo "{_MARK}"; cat {file}; echo "{_NOW}$(date +%s.%N)"'


class Power:
    """What such a script says, line by line as it comes: its arrival ties the board's clock to ours."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, dict[str, float]]] = []
        self._is_told = False
        self._ahead: float | None = None  # this machine's clock before the board's

    def hear(self, text: str) -> None:
        """Take a line; all before the mark are somebody else's."""
        if text == _MARK:
            self._is_told = True
        elif self._is_told and self._ahead is None:
            if text.startswith(_NOW):
                now = _number(text[len(_NOW) :])
                self._ahead = None if now is None else time.time() - now
            else:
                self._take(text)

    def _take(self, text: str) -> None:
        moment, *rails = text.split()
        watts = {name: _number(mw) for name, _, mw in (rail.partition("=") for rail in rails)}
        when = _number(moment)
        if when is not None and watts and None not in watts.values():
            self._readings.append((when, {name: mw / 1000 for name, mw in watts.items() if mw is not None}))

    def told(self, began: float | None, seconds: float | None) -> dict[str, Any]:
        """{"energy_j", "energy_source", "energy_note"} of a loop that began then, by this machine's clock."""
        if began is None or seconds is None or self._ahead is None or not self._readings:
            return _nothing("trtexec measured by itself, and the board shows no INA sensor")
        names = [name for name in WHOLE if name in self._readings[0][1]][:1] or list(self._readings[0][1])
        moments = np.array([when + self._ahead for when, _ in self._readings])
        watts = np.array([sum(rails.get(name, np.nan) for name in names) for _, rails in self._readings])
        joules = Meter("", moments, watts).joules(began, began + seconds)
        if joules is None or not np.isfinite(joules):
            return _nothing("the board's power sensors fell silent")
        return {"energy_j": joules, "energy_source": "ina: " + ", ".join(names), "energy_note": None}


def _nothing(note: str) -> dict[str, Any]:
    return {"energy_j": None, "energy_source": None, "energy_note": note}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
