"""The CPU's clock, and the governor that sets it."""

from __future__ import annotations

import re
from pathlib import Path

from runtimes.host.files import entries, read_int, read_text


def governor(root: Path = Path("/")) -> str | None:
    """The frequency governor; several are joined by ", "; None where the kernel does not set the clock."""
    names = {read_text(policy / "scaling_governor") for policy in _policies(root)} - {None, ""}
    return ", ".join(sorted(name for name in names if name)) or None


def max_mhz(root: Path = Path("/")) -> float | None:
    """The highest clock of the fastest core, in MHz."""
    return _highest(root, "cpuinfo_max_freq")


def current_mhz(root: Path = Path("/")) -> float | None:
    """The clock of the fastest core at this moment, in MHz."""
    clock = _highest(root, "scaling_cur_freq")
    if clock is not None:
        return clock
    lines = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", read_text(root / "proc/cpuinfo") or "", flags=re.MULTILINE)
    return max((float(line) for line in lines), default=None)


def _highest(root: Path, name: str) -> float | None:
    kilohertz = [clock for clock in (read_int(policy / name) for policy in _policies(root)) if clock is not None]
    return max(kilohertz) / 1000 if kilohertz else None


def _policies(root: Path) -> list[Path]:
    return entries(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq")
