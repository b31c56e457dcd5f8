"""Measure how much CPU time other processes used during a measurement.

The load average cannot be used: it is a mean over a minute, which includes our own earlier work. The times are those of
Linux' /proc/stat, in the ticks of POSIX's `sysconf`; elsewhere nothing is measured.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from runtimes.host.files import read_text

_SHORTEST_S = 0.5  # the kernel counts in ticks of 10 ms, too coarse below this


class CpuClock(NamedTuple):
    """A snapshot in seconds: wall time, CPU time of the whole machine, and CPU time of this process."""

    wall: float
    machine: float
    own: float


def cpu_clock(root: Path = Path("/")) -> CpuClock | None:
    """Take a snapshot; None if there is no /proc/stat.

    The machine's CPU time is user, nice, system, irq, softirq and steal (time the hypervisor gave to other guests).
    Source: proc_stat(5).
    """
    words = (read_text(root / "proc/stat") or "").split("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:9]):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    ticks = user + nice + system + irq + softirq + steal
    spent = os.times()
    return CpuClock(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), spent.user + spent.system)


def cores_of_others(before: CpuClock | None, after: CpuClock | None) -> float | None:
    """Return the mean number of cores that others kept busy between two snapshots; None if unknown or under 0.5 s."""
    if before is None or after is None or after.wall - before.wall < _SHORTEST_S:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, others / (after.wall - before.wall))
