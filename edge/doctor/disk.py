"""Check memory, swap and disk space."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.snapshot import Check, Finding, Snapshot

_MIB, _GIB = 2**20, 2**30
_SMALL_BOARD = 2 * _GIB
_LOW_MEMORY = 256 * _MIB  # a float MobileNetV2 takes about 100 MiB in an engine, and the engine itself as much
_LOW_DISK = 2 * _GIB  # the artifacts of `edge table` and pip's cache, with some reserve


def swap(snapshot: Snapshot) -> Iterator[Finding]:
    """Check a small board for swap: without it, a process that exceeds the memory is killed."""
    memory = snapshot.machine["memory"]
    total = memory["total_bytes"]
    if total is not None and total < _SMALL_BOARD and not memory["swap_total_bytes"]:
        yield Finding(
            level="warning",
            what=f"{total / _GIB:.1f} GiB of memory and no swap",
            why="a process whose model does not fit is killed without a message instead of running slowly",
            fix="sudo fallocate -l 1G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile",
        )


def available_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the memory that other programs leave free."""
    free = snapshot.machine["memory"]["available_bytes"]
    if free is None:
        return
    if free >= _LOW_MEMORY:
        yield Finding(level="ok", what=f"{free / _GIB:.1f} GiB of memory available")
        return
    yield Finding(
        level="warning",
        what=f"only {free // _MIB} MiB of memory are available",
        why="loading an engine and a model needs about 200 MiB",
        fix="close programs; on a board without a screen: sudo systemctl set-default multi-user.target && sudo reboot",
    )


def container_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for a container whose limit is below the machine's memory."""
    memory = snapshot.machine["memory"]
    limit, total = memory["limit_bytes"], memory["total_bytes"]
    if limit is not None and total is not None:  # without the total, a limit says nothing
        yield Finding(
            level="note",
            what=f"this container may use {limit / _GIB:.1f} of {total / _GIB:.1f} GiB",
            why="a process that asks for more is killed",
            fix="if that is too little, start the container with a higher --memory",
        )


def disk(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the disk that stores converted models."""
    folder = snapshot.cache
    free = snapshot.free_bytes(folder)
    if free is None or snapshot.is_board:  # where nothing is converted
        return
    if free >= _LOW_DISK:
        yield Finding(level="ok", what=f"{free / _GIB:.0f} GiB free for {folder}")
        return
    yield Finding(
        level="warning",
        what=f"only {free // _MIB} MiB are free for {folder}",
        why="converted models are stored there",
        fix="free some space (pip cache purge), or set XDG_CACHE_HOME to a folder on another disk",
    )


CHECKS: tuple[Check, ...] = (swap, available_memory, container_limit, disk)
