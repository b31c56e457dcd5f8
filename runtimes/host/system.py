"""The board, its memory, the operating system and Python.

Peak memory comes from Linux' /proc, else from POSIX's `resource`; Windows has neither.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from runtimes.host import darwin
from runtimes.host.files import program_output, read_int, read_text
from runtimes.host.schema import BoardFacts, MemoryFacts, OsFacts

_CONTAINER_MARKS = {".dockerenv": "docker", "run/.containerenv": "podman"}


def os_facts(root: Path) -> OsFacts:
    """Return the `os` part of `runtimes.host.facts`."""
    return {
        "system": platform.system() or None,
        "name": _distribution(root) or f"{platform.system()} {platform.release()}".strip() or None,
        "kernel": platform.release() or None,
        "page_bytes": _page_bytes(),
        "python": platform.python_version(),
        "container": _container(root),
        "virtual_machine": _is_virtual_machine(root),
        "emulated": is_emulated(root, platform.machine()),
    }


def _page_bytes() -> int | None:
    """Return the size of a memory page: 16 KiB on a Raspberry Pi 5 by default, which some drivers do not support."""
    try:
        return os.sysconf("SC_PAGESIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _distribution(root: Path) -> str | None:
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?(.*?)"?$', text, flags=re.MULTILINE)
    if match:
        return match.group(1)
    version = platform.mac_ver()[0]
    return f"macOS {version}" if version else None


def _container(root: Path) -> str | None:
    return next((name for mark, name in _CONTAINER_MARKS.items() if (root / mark).exists()), None)


def is_emulated(root: Path, machine: str) -> bool:
    """Return whether qemu's user mode emulates the processor, which makes measured times meaningless.

    machine: What programs take the processor for, as in `uname -m`.
    """
    kernel = read_text(root / "proc/sys/kernel/arch")  # since Linux 6.1
    family = {"x86_64": "x86", "i686": "x86", "i386": "x86", "amd64": "x86"}
    of_kernel, of_program = (family.get(name, name[:3]) for name in (kernel or "", machine.lower()))
    # aarch64, arm64, armv7l and armv8l are one family: a 64-bit kernel runs 32-bit programs natively.
    same = {"aar": "arm"}
    return bool(kernel) and same.get(of_kernel, of_kernel) != same.get(of_program, of_program)


def _is_virtual_machine(root: Path) -> bool:
    """Return whether the CPU flags (x86) or the device tree (ARM) show a hypervisor."""
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read_text(root / "proc/cpuinfo") or "", flags=re.MULTILINE)
    return flags is not None or (root / "proc/device-tree/hypervisor").exists()


def board_facts(root: Path) -> BoardFacts:
    """Return the `board` part of `runtimes.host.facts`."""
    in_tree = read_text(root / "proc/device-tree/model") or read_text(root / "sys/firmware/devicetree/base/model")
    return {
        "model": in_tree or program_output(root, "getprop", "ro.product.model") or None,  # a phone hides its tree
        "jetson_l4t": _jetson_release(root),
    }


def _jetson_release(root: Path) -> str | None:
    """`# R32 (release), REVISION: 7.1, GCID: ...` → `32.7.1`."""
    text = read_text(root / "etc/nv_tegra_release") or ""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match.group(1)}.{match.group(2)}" if match else None


def memory_facts(root: Path) -> MemoryFacts:
    """Return the `memory` part of `runtimes.host.facts`, in bytes; `limit_bytes` is the container's limit."""
    sizes = _kilobyte_lines(root / "proc/meminfo")
    return {
        "total_bytes": sizes.get("MemTotal") or darwin.memory_bytes(),
        "available_bytes": sizes.get("MemAvailable"),
        "swap_total_bytes": sizes.get("SwapTotal"),
        "swap_free_bytes": sizes.get("SwapFree"),
        "limit_bytes": _container_limit(root, sizes.get("MemTotal")),
    }


def peak_rss_bytes() -> int | None:
    """Return the peak resident memory of this process so far, in bytes; None if the system does not report it."""
    # Not ru_maxrss on Linux: after vfork and exec it starts with the parent's peak, so a small worker of a large
    # parent would report the parent's memory.
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
    """Parse the `Name:  123 kB` lines of a /proc file; values in bytes."""
    sizes = {}
    for line in (read_text(path) or "").splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 3 and words[2] == "kB" and words[1].isdigit():
            sizes[words[0]] = int(words[1]) * 1024
    return sizes


def _container_limit(root: Path, total: int | None) -> int | None:
    groups = root / "sys/fs/cgroup"
    limit = read_int(groups / "memory.max") or read_int(groups / "memory/memory.limit_in_bytes")
    # "No limit" is a huge number in control groups v1, and the word "max" in v2.
    return limit if limit and total and limit < total else None
