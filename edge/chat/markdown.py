"""A model's answer on the terminal while it streams: as Markdown where that can be drawn, else as it is."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Protocol

from edge.terminal import readable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_LEAST_PAUSE_S = 0.05  # between two drawings: 20 a second look continuous
_SHARE = 10  # drawing may take a tenth of the time, on a slow board too
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


class Shown(Protocol):
    """Where an answer is shown piece by piece."""

    def feed(self, text: str) -> None:
        """Show a piece."""

    def end(self) -> None:
        """The answer is over, or something else is said in between."""


class PlainText:
    """Writes the answer as it comes, and a newline at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ends_line = True

    def feed(self, text: str) -> None:
        """Write a piece."""
        if text:
            self._console.file.write(readable(text))
            self._console.file.flush()
            self._ends_line = text.endswith("\n")

    def end(self) -> None:
        """End the line."""
        if not self._ends_line:
            self.feed("\n")


class Markdown:
    """Draws the block that is being written again and again, and prints each block once when it is finished.

    A block ends with an empty line outside of fenced code, so what was printed never changes.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._pending = ""
        self._next_draw = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def feed(self, text: str) -> None:
        """Add a piece; drawn at once, or with one of the next."""
        self._pending += readable(text)
        if not self._live.is_started:
            self._live.start()
        finished, self._pending = _split(self._pending)
        if finished.strip():
            self._live.update("")
            self._print(finished)
            self._next_draw = 0.0
        began = time.monotonic()
        if began >= self._next_draw:
            self._live.update(_Tail(self._pending), refresh=True)
            cost = time.monotonic() - began
            self._next_draw = began + max(_LEAST_PAUSE_S, _SHARE * cost)

    def end(self) -> None:
        """Print what is left."""
        self._live.update("")
        self._live.stop()
        if self._pending.strip():
            self._print(self._pending)
        self._pending = ""

    def _print(self, text: str) -> None:
        self._console.print(_rendered(text))
        self._console.print()


class _Tail:
    """The last lines of a text as Markdown, as many as the terminal is high: a longer drawing cannot be undone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = console.render_lines(_rendered(self._text), options, pad=False)
        for line in lines[-max(1, console.size.height - 2) :]:
            yield from line
            yield Segment.line()


def _rendered(text: str):  # type: ignore[no-untyped-def] # rich's Markdown, imported here only
    from rich import markdown

    # No hyperlinks: what a link's text says and where it leads should both be seen.
    return markdown.Markdown(text.strip("\n"), hyperlinks=False, code_theme="ansi_dark")


def _split(text: str) -> tuple[str, str]:
    """The finished blocks, and the one that is being written."""
    place = text.rfind("\n\n")
    while place >= 0:
        if len(_FENCE.findall(text[:place])) % 2 == 0:
            return text[: place + 2], text[place + 2 :]
        place = text.rfind("\n\n", 0, place)
    return "", text
