"""How fast this machine reads memory: the ceiling of a language model, whose every token reads all weights once."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any, Sequence

import numpy as np

from runtimes.arrays import Array

# Far more than any cache of the machines in question (the largest have some 100 MB).
BUFFER_BYTES = 512 * 2**20
_ROUNDS = 7


def read_bandwidth(threads: int, buffer_bytes: int = BUFFER_BYTES) -> list[float]:
    """Bytes a second that `threads` threads read together, for each of several rounds; `buffer_bytes` in all.

    Each thread has the C library search its part of a buffer for a byte that is not there (`memchr`): every C
    library does that with the widest loads of the CPU, and nothing is written. Take the best round: the others are
    slower because something else ran.
    """
    memchr = _memchr()
    # Ones: untouched pages of zeros would all be the same physical page, which stays in the cache.
    buffers = [np.ones(max(1, buffer_bytes // threads), np.uint8) for _ in range(threads)]
    return [sum(buffer.nbytes for buffer in buffers) / _seconds(memchr, buffers) for _ in range(_ROUNDS)]


def _seconds(memchr: Any, buffers: Sequence[Array]) -> float:
    ready = threading.Barrier(len(buffers) + 1)

    def search(buffer: Array) -> None:
        ready.wait()
        memchr(buffer.ctypes.data, 0, buffer.nbytes)  # ctypes gives up the interpreter's lock meanwhile

    searchers = [threading.Thread(target=search, args=(buffer,)) for buffer in buffers]
    for searcher in searchers:
        searcher.start()
    ready.wait()
    start = time.perf_counter()
    for searcher in searchers:
        searcher.join()
    return time.perf_counter() - start


def _memchr() -> Any:
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    memchr = library.memchr
    memchr.restype = ctypes.c_void_p
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    return memchr
