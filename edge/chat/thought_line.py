"""One line of the terminal that shows a model's thought, and is removed when the answer begins."""

from __future__ import annotations

import shutil
import time
from typing import IO

from edge.console.text import readable

_MIN_PAUSE_S = 0.1  # between two redraws
_CLEAR_LINE = "\r\x1b[K"
_LABEL = "thinking: "


class ThoughtLine:
    """Shows the end of a thought while it grows; nothing if the stream is not a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._thought = ""
        self._began = 0.0
        self._next_draw = 0.0

    def feed(self, text: str) -> None:
        """Add a piece of the thought."""
        now = time.monotonic()
        if not self._thought:
            self._began = now
        self._thought += text
        if self._stream.isatty() and now >= self._next_draw:
            room = max(0, shutil.get_terminal_size().columns - len(_LABEL) - 1) // 2  # a character may be two wide
            words = " ".join(readable(self._thought[-4 * room :]).split())
            self._stream.write(f"{_CLEAR_LINE}{_LABEL}{words[-room:]}")
            self._stream.flush()
            self._next_draw = now + _MIN_PAUSE_S

    def end(self) -> str:
        """Remove the line; return "thought for 2.1 s, 120 words", or "" if there was no thought."""
        if not self._thought:
            return ""
        if self._stream.isatty():
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
        seconds, words = time.monotonic() - self._began, len(self._thought.split())
        self._thought = ""
        return f"thought for {seconds:.1f} s, {words} word{'' if words == 1 else 's'}"
