"""How fast this machine reads memory: the ceiling of a language model, whose every token reads all weights once."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any, Callable, Sequence

import numpy as np

from runtimes.arrays import Array

# Far more than any cache of the machines in question (the largest have some 100 MB).
BUFFER_BYTES = 512 * 2**20
_ROUNDS = 4


def read_bandwidth(threads: int, buffer_bytes: int = BUFFER_BYTES) -> list[float]:
    """Bytes a second that `threads` threads read together, for each of several rounds; `buffer_bytes` in all.

    Each thread has the C library read its part of a buffer, in turn by searching for a byte that is not there
    (`memchr`: one stream) and by comparing two equal halves (`memcmp`: two, which some cores read faster): every C
    library does that with the widest loads of the CPU, and nothing is written. Take the best round: the others are
    slower because something else ran, or for the way of reading.
    """
    # Ones: untouched pages of zeros would all be the same physical page, which stays in the cache.
    buffers = [np.ones(max(2, buffer_bytes // threads // 2 * 2), np.uint8) for _ in range(threads)]
    total = sum(buffer.nbytes for buffer in buffers)
    return [total / _seconds(read, buffers) for _ in range(_ROUNDS) for read in _readers()]


def _seconds(read: Callable[[int, int], Any], buffers: Sequence[Array]) -> float:
    """Wall time until all buffers are read, each by a thread of its own: ctypes gives up the interpreter's lock."""
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
    """Functions that read so many bytes from an address on."""
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    search, compare = library.memchr, library.memcmp
    search.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    search.restype = ctypes.c_void_p
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return (
        lambda address, size: search(address, 0, size),
        lambda address, size: compare(address, address + size // 2, size // 2),
    )
