"""Room: memory, swap and disk."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.finding import Check, Finding
from edge.doctor.situation import Situation

_MIB, _GIB = 2**20, 2**30
_SMALL_BOARD = 2 * _GIB
_LOW_MEMORY = 256 * _MIB  # a float MobileNetV2 in an engine takes about 100 MiB, the engine itself as much
_LOW_DISK = 2 * _GIB  # what the artifacts of `edge table` and pip's own cache take, with room to breathe


def swap(situation: Situation) -> Iterator[Finding]:
    """A small board without swap kills the process that asks for one page too many."""
    memory = situation.machine["memory"]
    total = memory["total_bytes"]
    if total is not None and total < _SMALL_BOARD and not memory["swap_total_bytes"]:
        yield Finding(
            "warning",
            f"{total / _GIB:.1f} GiB of memory and no swap",
            "a model that does not fit is killed without a word instead of running slowly",
            "sudo fallocate -l 1G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile",
        )


def available_memory(situation: Situation) -> Iterator[Finding]:
    """What other programs have left."""
    free = situation.machine["memory"]["available_bytes"]
    if free is None:
        return
    if free >= _LOW_MEMORY:
        yield Finding("ok", f"{free / _GIB:.1f} GiB of memory available")
        return
    yield Finding(
        "warning",
        f"only {free // _MIB} MiB of memory are available",
        "loading an engine and a model needs some 200 MiB",
        "close programs; on a board without a screen: sudo systemctl set-default multi-user.target && sudo reboot",
    )


def container_limit(situation: Situation) -> Iterator[Finding]:
    """A container that is given less than the machine has."""
    memory = situation.machine["memory"]
    if memory["limit_bytes"] is not None:
        yield Finding(
            "note",
            f"this container may use {memory['limit_bytes'] / _GIB:.1f} of {memory['total_bytes'] / _GIB:.1f} GiB",
            "a process that asks for more is killed",
            "start the container with a higher --memory where that is too little",
        )


def disk(situation: Situation) -> Iterator[Finding]:
    """Where converted models are kept."""
    folder = situation.cache
    free = situation.free_bytes(folder)
    if free is None:
        return
    if free >= _LOW_DISK:
        yield Finding("ok", f"{free / _GIB:.0f} GiB free for {folder}")
        return
    yield Finding(
        "warning",
        f"only {free // _MIB} MiB are free for {folder}",
        "converted models are kept there",
        "free some space (pip cache purge), or set XDG_CACHE_HOME to a folder on another disk",
    )


CHECKS: tuple[Check, ...] = (swap, available_memory, container_limit, disk)
