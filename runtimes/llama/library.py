"""llama-cpp-python's binding, and what stands between it and us: its log, and the flag that stops a computation."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from importlib import import_module
from typing import Any

from runtimes.errors import EngineError, first_line

_KEPT_LINES = 20
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
# The log callback has to live as long as the library, which keeps its address.
_alive: list[Any] = []
last_words: deque[str] = deque(maxlen=_KEPT_LINES)


def load() -> Any:
    """The module `llama_cpp.llama_cpp`, its log on stderr; EngineError where it does not load."""
    try:
        library = import_module("llama_cpp.llama_cpp")
    except Exception as error:
        hint = "install it again for this machine: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        raise EngineError(f"llama_cpp is installed but does not load: {first_line(error)}", hint) from error
    if not _alive:
        _alive.append(library.llama_log_callback(_log))
        library.llama_log_set(_alive[0], ctypes.c_void_p(0))
        library.llama_backend_init()
    return library


def complaint() -> str:
    """The last error that llama.cpp logged, for a message: ": …", or nothing."""
    return f": {last_words[-1][:200]}" if last_words else ""


def _log(level: int, text: bytes, _data: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR and line:
        last_words.append(line)
        sys.stderr.write(line + "\n")


class Pieces:
    """The bytes of single tokens, through a buffer of its own: one for each thread."""

    def __init__(self, library: Any, vocabulary: Any) -> None:
        self._library = library
        self._vocabulary = vocabulary
        self._buffer = ctypes.create_string_buffer(512)

    def of(self, token: int, special: bool = False) -> bytes:
        """The bytes of `token`; of marks such as `</s>` only with `special`."""
        size = self._into(token, special)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._into(token, special)
        return self._buffer.raw[:size]

    def _into(self, token: int, special: bool) -> int:
        buffer = self._buffer
        return int(self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, special))


class StopFlag:
    """What llama.cpp asks at every operation whether to stop, without the interpreter.

    A callback in Python would be called a hundred times a token and wait for the interpreter's lock each time: 51 µs a
    token, a quarter of a small model's time. The question is `strlen` of two bytes of ours instead: 0 goes on, 1 stops.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop the computation under way, or the next one."""
        self._text[0] = b"\1"

    def clear(self) -> None:
        """Go on."""
        self._text[0] = b"\0"

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._text[0] != b"\0"

    def attach(self, library: Any, context: Any) -> None:
        """Have `context` ask this flag."""
        strlen = ctypes.cast(_c_library().strlen, library.ggml_abort_callback)
        library.llama_set_abort_callback(context, strlen, ctypes.addressof(self._text))


def _c_library() -> Any:
    return ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
