"""How far a long command is, on stderr: a bar where that is a terminal, else one line for each step."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

_BAR_WIDTH = 24  # characters between the brackets
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Progress over `total` steps; a context manager whose end clears the bar.

        with Progress(len(files), "converting") as bar:
            for file in files:
                bar.note(file.name)      # what is being done
                ...
                bar.advance(file.name)   # what is done

    With `quiet` (what `--json` asks for) nothing is written unless stderr is a terminal.
    """

    def __init__(self, total: int, label: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._total = max(total, 1)
        self._label = label
        self._done = 0
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._is_silent = quiet and not self._is_terminal

    def note(self, text: str) -> None:
        """Say what is being done; a terminal shows it, a log is spared."""
        if self._is_terminal:
            self._draw(text)

    def advance(self, text: str = "", steps: int = 1) -> None:
        """One step, or several, are done."""
        self._done = min(self._done + steps, self._total)
        if self._is_terminal:
            self._draw(text)
        elif not self._is_silent:
            print(f"{self._label} {self._done}/{self._total} {text}".rstrip(), file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        self.note("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    def _draw(self, text: str) -> None:
        filled = _BAR_WIDTH * self._done // self._total
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        line = f"{self._label} [{bar}] {self._done}/{self._total} {text}"
        self._stream.write(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
