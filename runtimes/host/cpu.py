"""The processor: its name, its cores, and the instructions that decide how fast and how right int8 is."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from runtimes.host import darwin
from runtimes.host.arm_cores import core_name
from runtimes.host.files import entries, read_int, read_text
from runtimes.host.frequency import max_mhz

# Named as Linux names them in /proc/cpuinfo.
_SIMD = frozenset(("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "neon", "vfpv4", "asimd", "sve", "sve2"))
_AVX512 = frozenset(("avx512f", "avx512bw", "avx512_bf16", "avx512_fp16", "avx512_vnni"))
_MATRIX = frozenset(("avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"))
_ARM_NARROW = frozenset(("asimddp", "asimdhp", "fphp", "i8mm", "bf16"))
_FEATURES = _SIMD | _AVX512 | _MATRIX | _ARM_NARROW
_NEARLY_AS_FAST = 0.7  # of the fastest core: ARM's middle cores count, its small ones do not
_X86 = frozenset(("sse4_1", "sse4_2", "avx", "avx2"))
_X86_NAMES = ("x86_64", "amd64", "i386", "i686", "x86")  # as `platform.machine` says it, in small letters
_INT8_DOT_PRODUCT = frozenset(("avx512_vnni", "avx_vnni", "asimddp"))


def cpu_facts(root: Path) -> dict[str, Any]:
    """The `cpu` part of `runtimes.host.facts`."""
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
    """The processor's name; on ARM the names of its kinds of core, such as `Cortex-A76 + Cortex-A55`."""
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
    """The instruction sets that matter for speed and int8, by Linux' names: `avx2`, `avx_vnni`, `asimddp`."""
    words = [one.get("flags") or one.get("Features") or "" for one in _processors(root)]
    if not words:
        return darwin.cpu_features()
    # A process may be moved to any core, so only what all cores have counts.
    return _FEATURES.intersection(*(line.split() for line in words))


def has_int8_dot_product(root: Path = Path("/")) -> bool:
    """Whether one instruction sums products of 8-bit numbers in 32 bits: VNNI on x86, dotprod on ARM.

    Without it, the int8 kernels of x86 engines add pairs of products in 16 bits (`vpmaddubsw`), which
    saturates and changes answers; ARM engines stay right, but int8 gains little.
    """
    return not _INT8_DOT_PRODUCT.isdisjoint(cpu_features(root))


def int8_saturates(root: Path = Path("/")) -> bool:
    """Whether int8 kernels saturate in 16 bits here: those of x86 engines do, without a dot product instruction."""
    features = cpu_features(root)
    is_x86 = bool(_X86 & features) if features else platform.machine().lower() in _X86_NAMES
    return is_x86 and not has_int8_dot_product(root)


def logical_cores(root: Path = Path("/")) -> int:
    """The processors that the operating system schedules on, hyper-threads counted."""
    return len(_processors(root)) or os.cpu_count() or 1


def physical_cores(root: Path = Path("/")) -> int:
    """The cores, hyper-threads not counted."""
    topologies = entries(root / "sys/devices/system/cpu", "cpu[0-9]*/topology")
    # Threads of one core list the same siblings. Core numbers would not do: they repeat in each cluster.
    cores = {read_text(topology / "thread_siblings_list") for topology in topologies} - {None}
    if cores:
        return len(cores)
    pairs = {
        (one["physical id"], one["core id"]) for one in _processors(root) if "physical id" in one and "core id" in one
    }
    return len(pairs) or darwin.physical_cores() or logical_cores(root)


def performance_cores(root: Path = Path("/")) -> int:
    """The physical cores that are about as fast as the fastest: a slow one holds up all that compute together.

    Linux tells the kinds apart by the list of Intel's fast cores, or by `cpu_capacity` (ARM); else by their clocks.
    """
    devices = root / "sys/devices"
    fast = _listed(read_text(devices / "cpu_core/cpus") or "")
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


def _listed(text: str) -> set[int]:
    """The numbers of a list as Linux writes it: `0-3,8`."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def usable_cores(root: Path = Path("/")) -> int:
    """The processors that this process may use, by its affinity mask and its container's quota."""
    limits = [logical_cores(root)]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _cpu_quota(root)
    if quota is not None:
        # Rounded down: one thread too many is stopped in the middle of each scheduling period.
        limits.append(max(1, int(quota)))
    return min(limits)


def _cpu_quota(root: Path) -> float | None:
    """The processors that the control group grants, in its second or first version; None without a limit."""
    groups = root / "sys/fs/cgroup"
    text = read_text(groups / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
    runtime, period_us = read_int(groups / "cpu/cpu.cfs_quota_us"), read_int(groups / "cpu/cpu.cfs_period_us")
    return runtime / period_us if runtime and period_us and runtime > 0 else None


def _processors(root: Path) -> list[dict[str, str]]:
    """/proc/cpuinfo, one dictionary per processor."""
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
