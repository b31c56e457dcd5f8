"""Memory: of the machine, and the most that this process has held."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from runtimes.host import darwin
from runtimes.host.files import read_int, read_text


def memory_facts(root: Path) -> dict[str, Any]:
    """The `memory` part of `runtimes.host.facts`, in bytes; `limit_bytes` is what the container may use."""
    sizes = _kilobyte_lines(root / "proc/meminfo")
    return {
        "total_bytes": sizes.get("MemTotal") or darwin.memory_bytes(),
        "available_bytes": sizes.get("MemAvailable"),
        "swap_total_bytes": sizes.get("SwapTotal"),
        "swap_free_bytes": sizes.get("SwapFree"),
        "limit_bytes": _container_limit(root, sizes.get("MemTotal")),
    }


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held so far, in bytes; None where the system does not tell."""
    # Not ru_maxrss on Linux: a process started through vfork and exec begins with its parent's peak there,
    # so a small worker of a large parent would report the parent.
    high_water = _kilobyte_lines(Path("/proc/self/status")).get("VmHWM")
    if high_water is not None:
        return high_water
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the BSDs kilobytes


def _kilobyte_lines(path: Path) -> dict[str, int]:
    """The `Name:  123 kB` lines of a /proc file, in bytes."""
    sizes = {}
    for line in (read_text(path) or "").splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 3 and words[2] == "kB" and words[1].isdigit():
            sizes[words[0]] = int(words[1]) * 1024
    return sizes


def _container_limit(root: Path, total: int | None) -> int | None:
    groups = root / "sys/fs/cgroup"
    limit = read_int(groups / "memory.max") or read_int(groups / "memory/memory.limit_in_bytes")
    # "No limit" is a huge number in the first version of control groups, the word "max" in the second.
    return limit if limit and total and limit < total else None
