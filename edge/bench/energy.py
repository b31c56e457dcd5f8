"""Energy from a meter between the power supply and the board, by the file that it writes.

The file is CSV with a header: `time` (seconds of Unix time, or ISO 8601, which is local time where it names no zone),
and `watts`, or `volts` and `amps`. A board's own clock does not matter: the harness moves each loop to this machine's
clock, by which the file is taken to be written.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge.bench.harness import Measurement
from runtimes.arrays import Array
from runtimes.errors import InputError, UsageError

_COLUMNS = "its header names the columns time and watts, or time, volts and amps"
_LARGEST = 200_000_000  # bytes: a week of ten lines a second


class Meter(NamedTuple):
    """What a meter has told: moments, in Unix time, ascending, and the power at each."""

    name: str
    seconds: Array
    watts: Array

    def joules(self, start: float, end: float) -> float | None:
        """The energy between two moments, by the trapezoidal rule; None where the file does not reach over them."""
        if len(self.seconds) < 2 or start < self.seconds[0] or end > self.seconds[-1]:
            return None
        between = self.seconds[(self.seconds > start) & (self.seconds < end)]
        moments = np.concatenate(([start], between, [end]))
        return float(np.trapezoid(np.interp(moments, self.seconds, self.watts), moments))


def read_meter(path: Path) -> Meter:
    """The readings in a meter's file; InputError where it is none."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is larger than {_LARGEST // 10**6} MB", "cut it to the time of the measurement")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            found = _readings(csv.DictReader(stream), path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "name the file that the meter writes") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file: {error}", _COLUMNS) from None
    order = np.argsort(found[:, 0], kind="stable")
    return Meter(path.name, found[order, 0], found[order, 1])


def check_meter(path: Path, hosts: Sequence[str]) -> None:
    """Refuse, before anything is measured, what is no meter's file, and more boards than one meter measures."""
    if len(hosts) > 1:
        what = f"a meter measures one supply line, and {len(hosts)} boards are named"
        raise UsageError(what, "measure one board after another, each with the file of its own meter")
    read_meter(path)


def _readings(lines: csv.DictReader[str], path: Path) -> Array:
    names = {name.strip().lower(): name for name in lines.fieldnames or []}
    factors = next((wanted for wanted in (("watts",), ("volts", "amps")) if {"time", *wanted} <= set(names)), None)
    if factors is None:
        raise InputError(f"{path} has the columns {', '.join(names) or 'of nothing'}", _COLUMNS)
    rows = []
    for line in lines:
        try:
            power = float(np.prod([float(line[names[factor]]) for factor in factors]))
            when = _moment(line[names["time"]])
            if not (math.isfinite(power) and math.isfinite(when)):
                raise ValueError
            rows.append((when, power))
        except (TypeError, ValueError):
            # The last line may be half written: the meter goes on while it is read.
            following = next(lines, None)
            if following is not None:
                raise InputError(f"{path}, line {lines.line_num - 1}, holds no time and power", _COLUMNS) from None
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()).timestamp()


def awaited_meter(path: Path, measurements: Sequence[Measurement], patience_s: float = 5.0) -> Meter:
    """The readings, once they reach over the last loop or patience is over: meters write when a buffer is full."""
    ends = [_end(one) for one in measurements]
    last = max((end for end in ends if end is not None), default=None)
    until = time.monotonic() + patience_s
    while True:
        meter = read_meter(path)
        if last is None or (len(meter.seconds) and meter.seconds[-1] >= last) or time.monotonic() >= until:
            return meter
        time.sleep(0.5)


def _end(one: Measurement) -> float | None:
    began, seconds = one.values.get("began_at"), one.values.get("total_s")
    return None if began is None or seconds is None else float(began) + float(seconds)


def with_meter(measurements: Sequence[Measurement], meter: Meter) -> list[Measurement]:
    """The same measurements, their energy being what the meter told of their loops, or a note that it did not."""
    return [replace(one, values={**one.values, **_told(one, meter)}) for one in measurements]


def metered(measurements: list[Measurement], path: Path | None) -> list[Measurement]:
    """The same with what the meter's file, if there is one, tells of them.

    A file that has become none since it was checked is told on stderr, and loses nothing of what was measured.
    """
    if path is None:
        return measurements
    try:
        return with_meter(measurements, awaited_meter(path, measurements))
    except InputError as error:
        print(f"edge: {error.message}; energy is left out", file=sys.stderr)
        return measurements


def _told(one: Measurement, meter: Meter) -> dict[str, float | str | None]:
    began, seconds = one.values.get("began_at"), one.values.get("total_s")
    if began is None or seconds is None:
        return {}
    joules = meter.joules(began, began + seconds)
    if joules is None:
        note = f"{meter.name} does not reach over the measurement; is it written by this machine's clock?"
        return {"energy_j": None, "energy_source": None, "energy_note": note}
    return {"energy_j": joules, "energy_source": f"meter: {meter.name}", "energy_note": None}
