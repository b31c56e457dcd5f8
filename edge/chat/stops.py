"""Texts that end an answer, found while it streams, also where they arrive in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Holds back as much of a stream as may be the beginning of a stop text, and cuts the stream before one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit: str | None = None  # the stop text that was found

    def feed(self, text: str) -> str:
        """What may be shown now. After a hit: nothing."""
        if self.hit is not None:
            return ""
        text = self._held + text
        found = min(((text.find(stop), stop) for stop in self._stops if stop in text), default=None)
        if found is not None:
            self.hit, self._held = found[1], ""
            return text[: found[0]]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back and turned out to be no stop text, at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """The length of the longest end of `text` that a stop text begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stops)), 0)
