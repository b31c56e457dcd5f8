"""Measure memory read bandwidth, the upper bound of a language model: every token reads all weights once."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any, Callable, Sequence

import numpy as np

from runtimes.arrays import Array

# Far larger than any CPU cache (the largest have some 100 MB).
BUFFER_BYTES = 512 * 2**20
_ROUNDS = 4


def read_bandwidth(threads: int, buffer_bytes: int = BUFFER_BYTES) -> list[float]:
    """Return the bytes per second that `threads` threads read together, one value per round; `buffer_bytes` in total.

    Each thread lets the C library read its part of a buffer, alternating between searching for an absent byte
    (`memchr`: one stream) and comparing two equal halves (`memcmp`: two streams, which some cores read faster). C
    libraries implement both with the CPU's widest loads, and nothing is written. Use the best round: the others are
    slower because of other processes, or of the access pattern.
    """
    # Fill with ones: untouched zero pages all map to one physical page, which stays in the cache.
    buffers = [np.ones(max(2, buffer_bytes // threads // 2 * 2), np.uint8) for _ in range(threads)]
    total = sum(buffer.nbytes for buffer in buffers)
    return [total / _seconds(read, buffers) for _ in range(_ROUNDS) for read in _readers()]


def _seconds(read: Callable[[int, int], Any], buffers: Sequence[Array]) -> float:
    """Return the wall time to read all buffers, one thread each; ctypes releases the GIL."""
    ready = threading.Barrier(len(buffers) + 1)

    def work(buffer: Array) -> None:
        ready.wait()
        read(buffer.ctypes.data, buffer.nbytes)

    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    for worker in workers:
        worker.start()
    ready.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def _readers() -> tuple[Callable[[int, int], Any], ...]:
    """Return functions that read `size` bytes from an address."""
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    search, compare = library.memchr, library.memcmp
    search.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    search.restype = ctypes.c_void_p
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return (
        lambda address, size: search(address, 0, size),
        lambda address, size: compare(address, address + size // 2, size // 2),
    )
