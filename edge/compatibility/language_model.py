"""Check whether a language model fits into a device's memory, and what would (`edge check MODEL.gguf --for DEVICE`)."""

from __future__ import annotations

import re
from pathlib import Path

from converters.check.report import CompatibilityIssue, Report
from device_profiles.profiles import Profile
from runtimes.errors import UsageError
from runtimes.llm.llama_cpp.memory import format_bytes, memory_need, suggest_fitting, trained_context
from runtimes.model_files.gguf import read_gguf

# Used by the system of a small board. Raspberry Pi OS with its desktop, and Android with its apps, use more.
SYSTEM_BYTES = 400 * 10**6
CONTEXT = 2048
_UNITS = {"MB": 10**6, "GB": 10**9}


def check_text(path: Path, profile: Profile, memory: int | None, context: int | None) -> Report:
    """Check a GGUF file, of which only the header is read.

    memory: The device's memory in bytes; overrides the profile.
    context: The context length in tokens.

    Raises UsageError if neither `memory` nor the profile gives the size of the device's memory.
    """
    model = read_gguf(path)
    total = memory or (profile.memory.bytes if profile.memory else None)
    if total is None:
        raise UsageError(f"{profile.name} is sold with different amounts of memory", "specify it, such as --memory 4GB")
    tokens = min(context or CONTEXT, trained_context(model))
    wanted, free = memory_need(model, tokens), total - SYSTEM_BYTES
    refusals: tuple[CompatibilityIssue, ...] = ()
    if wanted.total > free:
        available = f"about {format_bytes(max(free, 0))} of {format_bytes(total)} are free"
        what = f"it needs {format_bytes(wanted.total)}, but only {available}"
        refusals = (CompatibilityIssue(what, suggest_fitting(model, free, tokens).replace("MODEL.gguf", path.name)),)
    memory_report = {
        "needed_bytes": wanted.total,
        "weights_bytes": wanted.weights,
        "cache_bytes": wanted.cache,
        "buffers_bytes": wanted.buffers,
        "device_bytes": total,
        "context": tokens,
    }
    return Report(
        accelerator="", nodes=(), refusals=refusals, parameter_bytes=wanted.weights, extra={"memory": memory_report}
    )


def parse_size(text: str) -> int:
    """Parse a memory size such as "4GB" or "512MB" to bytes. Raises UsageError for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise UsageError(f"'{text}' is not a memory size", "write it as 4GB or 512MB")
    return int(float(found[1]) * _UNITS[f"{found[2].upper()}B"])
