"""The processor: its name, cores and clock, and the instructions that determine int8 speed and accuracy.

The cores that this process may use are known where POSIX' scheduler calls exist, on Linux.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from runtimes.host import darwin
from runtimes.host.files import entries, read_int, read_text
from runtimes.host.schema import CpuFacts

# Names as in Linux' /proc/cpuinfo.
_SIMD = frozenset(("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "neon", "vfpv4", "asimd", "sve", "sve2"))
_AVX512 = frozenset(("avx512f", "avx512bw", "avx512_bf16", "avx512_fp16", "avx512_vnni"))
_MATRIX = frozenset(("avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"))
_ARM_NARROW = frozenset(("asimddp", "asimdhp", "fphp", "i8mm", "bf16"))
_FEATURES = _SIMD | _AVX512 | _MATRIX | _ARM_NARROW
_NEARLY_AS_FAST = 0.7  # of the fastest core's clock: includes ARM's middle cores, excludes its little ones
_X86 = frozenset(("sse4_1", "sse4_2", "avx", "avx2"))
_X86_NAMES = ("x86_64", "amd64", "i386", "i686", "x86")  # `platform.machine()` in lower case
_INT8_DOT_PRODUCT = frozenset(("avx512_vnni", "avx_vnni", "asimddp"))


def cpu_facts(root: Path) -> CpuFacts:
    """Return the `cpu` part of `runtimes.host.facts`."""
    return {
        "model": model_name(root),
        "architecture": platform.machine() or None,
        "logical_cores": logical_cores(root),
        "physical_cores": physical_cores(root),
        "usable_cores": usable_cores(root),
        "max_mhz": max_mhz(root),
        "features": sorted(cpu_features(root)),
        "int8_dot_product": has_int8_dot_product(root),
        "int8_saturates": int8_saturates(root),
    }


def model_name(root: Path = Path("/")) -> str | None:
    """Return the processor's name; on ARM, the names of its core types, such as `Cortex-A76 + Cortex-A55`."""
    processors = _processors(root)
    # ARM first: a Raspberry Pi in 32-bit mode also has a "model name", which names only the architecture.
    cores = [
        core_name(one["CPU implementer"], one.get("CPU part", "")) for one in processors if "CPU implementer" in one
    ]
    if cores:
        return " + ".join(dict.fromkeys(cores))
    named = [one["model name"] for one in processors if one.get("model name")]
    if named:
        return named[0]
    return darwin.cpu_name() or platform.processor() or None


def cpu_features(root: Path = Path("/")) -> frozenset[str]:
    """Return the instruction sets that matter for speed and int8, by Linux' names: `avx2`, `avx_vnni`, `asimddp`."""
    words = [one.get("flags") or one.get("Features") or "" for one in _processors(root)]
    if not words:
        return darwin.cpu_features()
    # A process may move to any core, so only features of all cores count.
    return _FEATURES.intersection(*(line.split() for line in words))


def has_int8_dot_product(root: Path = Path("/")) -> bool:
    """Return whether an instruction accumulates 8-bit products in 32 bits: VNNI on x86, dotprod on ARM.

    Without it, the int8 kernels of x86 engines add pairs of products in 16 bits (`vpmaddubsw`), which saturates and
    changes results; ARM engines stay accurate, but int8 is hardly faster.
    """
    return not _INT8_DOT_PRODUCT.isdisjoint(cpu_features(root))


def int8_saturates(root: Path = Path("/")) -> bool:
    """Return whether int8 kernels saturate in 16 bits: on x86 without a dot product instruction they do."""
    features = cpu_features(root)
    is_x86 = bool(_X86 & features) if features else platform.machine().lower() in _X86_NAMES
    return is_x86 and not has_int8_dot_product(root)


def logical_cores(root: Path = Path("/")) -> int:
    """Return the number of logical processors, including hyper-threads."""
    return len(_processors(root)) or os.cpu_count() or 1


def physical_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores."""
    topologies = entries(root / "sys/devices/system/cpu", "cpu[0-9]*/topology")
    # Threads of one core list the same siblings. Core ids cannot be used: they repeat in each cluster.
    cores = {read_text(topology / "thread_siblings_list") for topology in topologies} - {None}
    if cores:
        return len(cores)
    pairs = {
        (one["physical id"], one["core id"]) for one in _processors(root) if "physical id" in one and "core id" in one
    }
    return len(pairs) or darwin.physical_cores() or logical_cores(root)


def performance_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores about as fast as the fastest.

    A slow core would delay all others in a parallel loop. Core types are distinguished by Linux' list of Intel's
    performance cores, by `cpu_capacity` (ARM), else by clock.
    """
    devices = root / "sys/devices"
    fast = _parse_list(read_text(devices / "cpu_core/cpus") or "")
    cores = entries(devices / "system/cpu", "cpu[0-9]*")
    strength = {
        core: read_int(core / "cpu_capacity") or read_int(core / "cpufreq/cpuinfo_max_freq") or 0 for core in cores
    }
    strongest = max(strength.values(), default=0)
    chosen = [
        core
        for core in cores
        if (int(core.name[3:]) in fast if fast else strength[core] >= _NEARLY_AS_FAST * strongest)
    ]
    # Hyper-threads of one core list the same siblings.
    physical = {read_text(core / "topology/thread_siblings_list") or core.name for core in chosen}
    return len(physical) or physical_cores(root)


def _parse_list(text: str) -> set[int]:
    """Parse a Linux CPU list: `0-3,8`."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of processors available to this process, by its affinity mask and its container's quota."""
    limits = [logical_cores(root)]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _cpu_quota(root)
    if quota is not None:
        # Round down: with one thread too many, all are throttled in every scheduling period.
        limits.append(max(1, int(quota)))
    return min(limits)


def _cpu_quota(root: Path) -> float | None:
    """Return the CPU limit of the control group (v2 or v1), in processors; None without a limit."""
    groups = root / "sys/fs/cgroup"
    text = read_text(groups / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
    runtime, period_us = read_int(groups / "cpu/cpu.cfs_quota_us"), read_int(groups / "cpu/cpu.cfs_period_us")
    return runtime / period_us if runtime and period_us and runtime > 0 else None


def _processors(root: Path) -> list[dict[str, str]]:
    """Parse /proc/cpuinfo into one dictionary per processor."""
    processors: list[dict[str, str]] = []
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            continue
        if key.strip() == "processor":
            processors.append({})
        if processors:
            processors[-1][key.strip()] = value.strip()
    return processors


# Names of ARM cores by implementer and part number in /proc/cpuinfo. Source: each core's Technical Reference
# Manual (register MIDR_EL1), as collected in util-linux' `lscpu-arm.c`.
_IMPLEMENTERS = {
    0x41: "ARM",
    0x42: "Broadcom",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
}


_CORES = {
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC08): "Cortex-A8",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
}


def core_name(implementer: str, part: str) -> str:
    """Return the name of an ARM core: `("0x41", "0xd03")` → `Cortex-A53`; unknown cores are named by their numbers."""
    try:
        maker, number = int(implementer, 16), int(part, 16)
    except ValueError:
        return f"ARM core {implementer}/{part}"
    known = _CORES.get((maker, number))
    return known or f"{_IMPLEMENTERS.get(maker, 'ARM core ' + implementer)} part {part}"


def governor(root: Path = Path("/")) -> str | None:
    """Return the frequency governor; several are joined by ", "; None if the kernel does not scale frequency."""
    names = {read_text(policy / "scaling_governor") for policy in _policies(root)} - {None, ""}
    return ", ".join(sorted(name for name in names if name)) or None


def max_mhz(root: Path = Path("/")) -> float | None:
    """Return the maximum clock of the fastest core, in MHz."""
    return _highest(root, "cpuinfo_max_freq")


def current_mhz(root: Path = Path("/")) -> float | None:
    """Return the current clock of the fastest core, in MHz."""
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
