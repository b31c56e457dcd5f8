"""Energy from a meter between the power supply and the board, read from the file that it writes.

The file is CSV with a header: `time` (Unix time in seconds, or ISO 8601, in local time unless it names a zone), and
`watts`, or `volts` and `amps`. A board's own clock does not matter: the harness converts the times of each loop to this
machine's clock, and assumes that the meter's file uses it too.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge.benchmark.harness import Measurement
from runtimes.arrays import Array
from runtimes.errors import InputError, UsageError
from runtimes.measurement.answer import MeasureAnswer

_log = logging.getLogger(__name__)
_COLUMNS = "its header must name the columns time and watts, or time, volts and amps"
_MAX_METER_BYTES = 200_000_000  # a week at ten lines per second


class Meter(NamedTuple):
    """The readings of a meter.

    name: The name of its file.
    seconds: The times of the readings, in Unix time, ascending.
    watts: The power at each of them.
    """

    name: str
    seconds: Array
    watts: Array

    def joules(self, start: float, end: float) -> float | None:
        """Integrate the power between two times with the trapezoidal rule; None if the file does not cover them."""
        if len(self.seconds) < 2 or start < self.seconds[0] or end > self.seconds[-1]:
            return None
        between = self.seconds[(self.seconds > start) & (self.seconds < end)]
        moments = np.concatenate(([start], between, [end]))
        return float(np.trapezoid(np.interp(moments, self.seconds, self.watts), moments))


def read_meter(path: Path) -> Meter:
    """Read a meter's file. Raises InputError if it is not one."""
    try:
        if path.stat().st_size > _MAX_METER_BYTES:
            raise InputError(
                f"{path} is larger than {_MAX_METER_BYTES // 10**6} MB", "trim it to the time of the measurement"
            )
        with path.open(encoding="utf-8-sig", newline="") as stream:
            found = _readings(csv.DictReader(stream), path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "name the file that the meter writes") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}", _COLUMNS) from None
    order = np.argsort(found[:, 0], kind="stable")
    return Meter(path.name, found[order, 0], found[order, 1])


def check_meter(path: Path, hosts: Sequence[str]) -> None:
    """Raise an error, before anything is measured, if the file is not a meter's or if there is more than one board."""
    if len(hosts) > 1:
        what = f"a meter measures one supply line, but {len(hosts)} boards are named"
        raise UsageError(what, "measure one board after another, each with the file of its own meter")
    read_meter(path)


def _readings(lines: csv.DictReader[str], path: Path) -> Array:
    names = {name.strip().lower(): name for name in lines.fieldnames or []}
    factors = next((wanted for wanted in (("watts",), ("volts", "amps")) if {"time", *wanted} <= set(names)), None)
    if factors is None:
        raise InputError(f"{path} has the columns {', '.join(names)}" if names else f"{path} has no header", _COLUMNS)
    rows = []
    for line in lines:
        try:
            power = float(np.prod([float(line[names[factor]]) for factor in factors]))
            when = _moment(line[names["time"]])
            if not (math.isfinite(power) and math.isfinite(when)):
                raise ValueError
            rows.append((when, power))
        except (TypeError, ValueError):
            # The last line may be incomplete, because the meter is still writing.
            following = next(lines, None)
            if following is not None:
                raise InputError(f"{path}, line {lines.line_num - 1}, lacks a time or a power", _COLUMNS) from None
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()).timestamp()


def wait_for_meter(path: Path, measurements: Sequence[Measurement], timeout_s: float = 5.0) -> Meter:
    """Read the file once it covers the last loop, or after `timeout_s`: meters write when their buffer is full."""
    ends = [_end(one) for one in measurements]
    last = max((end for end in ends if end is not None), default=None)
    until = time.monotonic() + timeout_s
    while True:
        meter = read_meter(path)
        if last is None or (len(meter.seconds) and meter.seconds[-1] >= last) or time.monotonic() >= until:
            return meter
        time.sleep(0.5)


def _end(one: Measurement) -> float | None:
    began, seconds = one.values.get("began_at"), one.values.get("total_s")
    return None if began is None or seconds is None else float(began) + float(seconds)


def with_meter(measurements: Sequence[Measurement], meter: Meter) -> list[Measurement]:
    """Set the energy of each measurement from the meter's readings, or a note if they do not cover its loop."""
    return [replace(one, values={**one.values, **_energy_of(one, meter)}) for one in measurements]


def add_energy(measurements: list[Measurement], path: Path | None) -> list[Measurement]:
    """Add the energy from the meter's file; with `path` None, return the measurements unchanged.

    If the file has become unreadable since it was checked, a warning is logged and the measurements are kept.
    """
    if path is None:
        return measurements
    try:
        return with_meter(measurements, wait_for_meter(path, measurements))
    except InputError as error:
        _log.warning("%s; energy is left out", error.message)
        return measurements


def _energy_of(one: Measurement, meter: Meter) -> MeasureAnswer:
    began, seconds = one.values.get("began_at"), one.values.get("total_s")
    if began is None or seconds is None:
        return {}
    joules = meter.joules(began, began + seconds)
    if joules is None:
        note = f"{meter.name} does not cover the time of the measurement; does it use this machine's clock?"
        return {"energy_j": None, "energy_source": None, "energy_note": note}
    return {"energy_j": joules, "energy_source": f"meter: {meter.name}", "energy_note": None}
