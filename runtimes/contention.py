"""How much of the CPU other processes took while we measured.

A load average cannot tell: it is a mean over a minute, in which our own earlier work still counts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from runtimes.host.files import read_text

_SHORTEST_S = 0.5  # the kernel counts in ticks of 10 ms; below this they are too coarse


class CpuClock(NamedTuple):
    """Seconds at one moment: on the wall, of work by all cores of the machine, and of work by this process."""

    wall: float
    machine: float
    own: float


def cpu_clock(root: Path = Path("/")) -> CpuClock | None:
    """The clocks now; None where there is no /proc/stat.

    Work of the machine is user, nice, system, irq, softirq and steal, which is what a hypervisor gave to others.
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
    """How many cores others kept busy on average between two moments; None where it cannot be told, or under 0.5 s."""
    if before is None or after is None or after.wall - before.wall < _SHORTEST_S:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, others / (after.wall - before.wall))
