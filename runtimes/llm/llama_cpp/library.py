"""Load llama-cpp-python's binding, receive its log, and stop a computation."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from importlib import import_module
from typing import Any

from runtimes.errors import EngineError, first_line

# Without this variable, llama.cpp starts gdb when it aborts, whose output hides the reason.
NO_BACKTRACE = "GGML_NO_BACKTRACE"
_KEPT_LINES = 20
ERROR = 4  # GGML_LOG_LEVEL_ERROR
_CONSEQUENCE = ": failed to load model"  # logged after the reason
# The log callback must live as long as the library, which stores its address.
_alive: list[Any] = []
_errors: deque[str] = deque(maxlen=_KEPT_LINES)


def load() -> Any:
    """Import `llama_cpp.llama_cpp`, with its errors on stderr. Raises EngineError if that fails."""
    os.environ.setdefault(NO_BACKTRACE, "1")
    try:
        library = import_module("llama_cpp.llama_cpp")
    except Exception as error:
        hint = "install it again for this machine: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        raise EngineError(f"llama_cpp is installed but cannot be loaded: {first_line(error)}", hint) from error
    if not _alive:
        _alive.append(library.llama_log_callback(_log))
        listen(library)
        library.llama_backend_init()
    return library


def listen(library: Any) -> None:
    """Set our log callback, which writes errors to stderr; it replaces any other callback."""
    library.llama_log_set(_alive[0], ctypes.c_void_p(0))


def last_error() -> str:
    """Return the last error that llama.cpp logged as ": …", for a message; empty if there is none."""
    reasons = [line for line in _errors if not line.endswith(_CONSEQUENCE)] or [*_errors]
    return f": {reasons[-1][:200]}" if reasons else ""


def _log(level: int, text: bytes, _data: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == ERROR and line:
        _errors.append(line)
        sys.stderr.write(line + "\n")


class Pieces:
    """Converts single tokens to bytes; each thread needs its own instance, because of its buffer."""

    def __init__(self, library: Any, vocabulary: Any) -> None:
        self._library = library
        self._vocabulary = vocabulary
        self._buffer = ctypes.create_string_buffer(512)

    def of(self, token: int, special: bool = False) -> bytes:
        """Return the bytes of `token`; empty for special tokens such as `</s>`, unless `special`."""
        size = self._into(token, special)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._into(token, special)
        return self._buffer.raw[:size]

    def _into(self, token: int, special: bool) -> int:
        buffer = self._buffer
        return int(self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, special))


class StopFlag:
    """A flag that llama.cpp checks at every operation, without calling Python.

    A callback in Python would be called a hundred times per token and wait for the GIL each time: 51 µs per token, a
    quarter of a small model's time. Here the callback is C's `strlen` on two bytes: 0 continues, 1 stops.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop the running computation, or the next one."""
        self._text[0] = b"\1"

    def clear(self) -> None:
        """Allow computations again."""
        self._text[0] = b"\0"

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._text[0] != b"\0"

    def attach(self, library: Any, context: Any) -> None:
        """Let `context` check this flag."""
        strlen = ctypes.cast(_c_library().strlen, library.ggml_abort_callback)
        library.llama_set_abort_callback(context, strlen, ctypes.addressof(self._text))


def _c_library() -> Any:
    return ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
