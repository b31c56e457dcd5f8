"""`edge check MODEL.gguf --for DEVICE`: does a language model fit into the device's memory, and what would?"""

from __future__ import annotations

import re
from pathlib import Path

from converters.check.report import Problem, Report
from device_profiles.profiles import Profile
from runtimes.errors import UsageError
from runtimes.gguf_file import read_gguf
from runtimes.llama.memory import gigabytes, need, remedy, trained_context

# What the system of a small board keeps for itself: Raspberry Pi OS with its desktop, or Android's own apps, take more.
_SYSTEM_BYTES = 400 * 10**6
_CONTEXT = 2048
_UNITS = {"MB": 10**6, "GB": 10**9}


def check_text(path: Path, profile: Profile, memory: int | None, context: int | None) -> Report:
    """The verdict for a GGUF file, by its header alone; `memory` overrides what the profile knows, in bytes.

    UsageError where neither says how much memory the device has.
    """
    model = read_gguf(path)
    total = memory or (profile.memory.bytes if profile.memory else None)
    if total is None:
        raise UsageError(f"{profile.name} comes with different sizes of memory", "say which: --memory 4GB")
    tokens = min(context or _CONTEXT, trained_context(model))
    wanted, free = need(model, tokens), total - _SYSTEM_BYTES
    refusals: tuple[Problem, ...] = ()
    if wanted.total > free:
        what = f"it needs {gigabytes(wanted.total)}, and of {gigabytes(total)} about {gigabytes(max(free, 0))} are free"
        refusals = (Problem(what, remedy(model, free, tokens).replace("MODEL.gguf", path.name)),)
    told = {
        "needed_bytes": wanted.total,
        "weights_bytes": wanted.weights,
        "cache_bytes": wanted.cache,
        "buffers_bytes": wanted.buffers,
        "device_bytes": total,
        "context": tokens,
    }
    return Report("", (), refusals, parameter_bytes=wanted.weights, extra={"memory": told})


def size(text: str) -> int:
    """Bytes of "4GB" or "512MB"; UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise UsageError(f"'{text}' is no size of memory", "write it as 4GB or 512MB")
    return int(float(found[1]) * _UNITS[f"{found[2].upper()}B"])
