"""The operating system, the Python on it, and whether both live in a container or a virtual machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from runtimes.host.files import read_text

_CONTAINER_MARKS = {".dockerenv": "docker", "run/.containerenv": "podman"}


def os_facts(root: Path) -> dict[str, Any]:
    """The `os` part of `runtimes.host.facts`."""
    return {
        "system": platform.system() or None,
        "name": _distribution(root) or f"{platform.system()} {platform.release()}".strip() or None,
        "kernel": platform.release() or None,
        "python": platform.python_version(),
        "container": _container(root),
        "virtual_machine": _is_virtual_machine(root),
        "emulated": _is_emulated(root),
    }


def _distribution(root: Path) -> str | None:
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?(.*?)"?$', text, flags=re.MULTILINE)
    if match:
        return match.group(1)
    version = platform.mac_ver()[0]
    return f"macOS {version}" if version else None


def _container(root: Path) -> str | None:
    return next((name for mark, name in _CONTAINER_MARKS.items() if (root / mark).exists()), None)


def _is_emulated(root: Path) -> bool:
    """Whether another kind of processor than this program's runs it: qemu's user mode, whose times mean nothing."""
    kernel = read_text(root / "proc/sys/kernel/arch")  # since Linux 6.1
    family = {"x86_64": "x86", "i686": "x86", "i386": "x86", "amd64": "x86"}
    of_kernel, of_program = (family.get(name, name[:3]) for name in (kernel or "", platform.machine().lower()))
    # aarch64, arm64, armv7l and armv8l are one family: a 64-bit kernel runs 32-bit programs by itself.
    same = {"aar": "arm"}
    return bool(kernel) and same.get(of_kernel, of_kernel) != same.get(of_program, of_program)


def _is_virtual_machine(root: Path) -> bool:
    """Whether the processor says that a hypervisor runs beneath (x86), or the device tree does (ARM)."""
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read_text(root / "proc/cpuinfo") or "", flags=re.MULTILINE)
    return flags is not None or (root / "proc/device-tree/hypervisor").exists()
