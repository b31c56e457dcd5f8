"""Progress of long operations: the events of the API, and their display on stderr.

The display is a bar if stderr is a terminal, else one line per step.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_BAR_WIDTH = 24  # characters between the brackets
_CLEAR_LINE = "\r\x1b[K"


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """The argument of an `on_progress` callback.

    text: What is being done, or has just been done.
    done: The number of completed steps.
    total: The total number of steps, 0 if unknown.
    """

    text: str
    done: int = 0
    total: int = 0


OnProgress = Callable[[ProgressEvent], None]


def ignore_progress(_event: ProgressEvent) -> None:
    """Do nothing with an event."""


class ProgressBar:
    """Show progress over `total` steps; a context manager that clears the bar at its end.

        with Progress(len(files), "converting") as bar:
            for file in files:
                bar.note(file.name)      # what is being done
                ...
                bar.advance(file.name)   # what is done

    With `quiet` (set by `--json`), nothing is written unless stderr is a terminal.
    """

    def __init__(self, total: int, label: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._total = max(total, 1)
        self._label = label
        self._done = 0
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._is_silent = quiet and not self._is_terminal

    def note(self, text: str) -> None:
        """Show what is being done; only on a terminal, so that logs stay short."""
        if self._is_terminal:
            self._draw(text)

    def advance(self, text: str = "", steps: int = 1) -> None:
        """Record one or more completed steps."""
        self._done = min(self._done + steps, self._total)
        if self._is_terminal:
            self._draw(text)
        elif not self._is_silent:
            print(f"{self._label} {self._done}/{self._total} {text}".rstrip(), file=self._stream, flush=True)

    def show(self, event: ProgressEvent) -> None:
        """Show an event of the API: a completed step, or what is being done."""
        self._total = event.total or self._total
        if event.done > self._done:
            self.advance(event.text, event.done - self._done)
        else:
            self.note(event.text)

    def __enter__(self) -> ProgressBar:
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
