"""How much power a Jetson may draw, and whether its clocks stand still."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runtimes.host.files import entries, program_output, read_int, read_text


def power_mode(root: Path = Path("/")) -> dict[str, Any] | None:
    """{"id", "name"} of the mode that `nvpmodel` has set; None where there is no such thing.

    The name is None where only root may ask for it, and the file that keeps the number is all there is to read.
    """
    told = program_output(root, "nvpmodel", "-q") or ""
    match = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)", told)
    if match:
        return {"id": int(match.group(2)), "name": match.group(1)}
    kept = re.search(r"pmode:\s*(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    return {"id": int(kept.group(1)), "name": None} if kept else None


def gpu_clock(root: Path = Path("/")) -> dict[str, Any] | None:
    """{"now_mhz", "min_mhz", "max_mhz", "fixed"} of a Jetson's GPU; `jetson_clocks` fixes it at its highest."""
    for device in entries(root / "sys/class/devfreq", "*"):
        if not re.search(r"gpu|gp10b|gv11b|ga10b|gm20b", device.name):
            continue
        low, high, now = (read_int(device / f"{name}_freq") for name in ("min", "max", "cur"))
        if low is not None and high is not None:
            mhz = {"now_mhz": now and now / 1e6, "min_mhz": low / 1e6, "max_mhz": high / 1e6}
            return {**mhz, "fixed": low == high}
    return None
