"""Machine facts from macOS' `sysctl`; None or empty on other systems."""

from __future__ import annotations

import platform
from pathlib import Path

from runtimes.host.files import program_output

# sysctl's names → Linux' names of the same instructions.
_ARM_FEATURES = {
    "hw.optional.arm.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}
_X86_FEATURES = {
    "AVX1.0": "avx",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX512F": "avx512f",
    "AVX512VNNI": "avx512_vnni",
}


def sysctl(name: str) -> str | None:
    """Return a value of `sysctl` on macOS, None elsewhere."""
    return program_output(Path("/"), "sysctl", "-n", name) if platform.system() == "Darwin" else None


def cpu_name() -> str | None:
    """Return the processor's name, such as `Apple M2`."""
    return sysctl("machdep.cpu.brand_string")


def physical_cores() -> int | None:
    """Return the number of physical cores."""
    return _number(sysctl("hw.physicalcpu"))


def memory_bytes() -> int | None:
    """Return the size of main memory in bytes."""
    return _number(sysctl("hw.memsize"))


def cpu_features() -> frozenset[str]:
    """Return the relevant instruction sets, by Linux' names."""
    arm = {ours for theirs, ours in _ARM_FEATURES.items() if sysctl(theirs) == "1"}
    words = f"{sysctl('machdep.cpu.features')} {sysctl('machdep.cpu.leaf7_features')}".split()
    return frozenset(arm | {ours for theirs, ours in _X86_FEATURES.items() if theirs in words})


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
