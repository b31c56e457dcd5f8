"""Separate a reasoning model's thoughts from its answers while the text streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# What opens and closes a thought: Qwen and DeepSeek; Magistral; Seed-OSS; gpt-oss (its "analysis" channel).
_THOUGHTS = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|channel|>analysis<|message|>": "<|end|>",
}
# What gpt-oss writes before an answer.
_ANSWERS = ("<|start|>assistant", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>")
# Parts of these markers that are control tokens, whose text an engine leaves out.
CONTROL_TOKENS = frozenset(
    {*_THOUGHTS, *_THOUGHTS.values(), "<|channel|>", "<|message|>", "<|start|>"} - {"<|channel|>analysis<|message|>"}
)


@dataclass(frozen=True)
class Piece:
    """A piece of a thought or of the answer."""

    text: str
    is_thought: bool


class ThoughtSplitter:
    """Splits a stream into thought and answer. Holds back text that may be the start of a marker.

    A thought begins only before the answer: an answer that quotes `<think>` stays unchanged. `prompt_end` is the end of
    the prompt: some templates open the thought themselves.
    """

    def __init__(self, prompt_end: str = "") -> None:
        self._held = ""
        self._has_thought = False
        self._is_answering = False
        opened = prompt_end.rstrip()
        self._close = next((close for mark, close in _THOUGHTS.items() if opened.endswith(mark)), "")

    def feed(self, text: str) -> list[Piece]:
        """Add a text and return what can be shown now."""
        self._held += text
        return list(self._pieces())

    def rest(self) -> list[Piece]:
        """Return what is still held back at the end of the stream."""
        held, self._held = self._held, ""
        return [Piece(held, bool(self._close))] if held else []

    def _pieces(self) -> Iterator[Piece]:
        while self._held:
            if self._close:
                before, mark, after = self._held.partition(self._close)
                keep = 0 if mark else _beginning(before, self._close)
                if thought := before[: len(before) - keep]:
                    yield Piece(thought, is_thought=True)
                self._held = after if mark else before[len(before) - keep :]
                if not mark:
                    return
                self._close, self._has_thought = "", True
            elif self._is_answering:
                text, self._held = self._held, ""
                yield Piece(text, is_thought=False)
            elif not self._open():
                return

    def _open(self) -> bool:
        """Read a marker, or find that the answer begins. Returns False if more text is needed to decide."""
        text = self._held.lstrip()
        mark = next((one for one in (*_THOUGHTS, *_ANSWERS) if text.startswith(one)), None)
        if mark is not None:
            self._held = text[len(mark) :]
            self._close = _THOUGHTS.get(mark, "")
            return True
        if any(one.startswith(text) for one in (*_THOUGHTS, *_ANSWERS)):
            return False
        self._is_answering = True
        if self._has_thought:
            self._held = text  # the blank lines between a thought and its answer belong to neither
        return True


def _beginning(text: str, mark: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `mark`."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if mark.startswith(text[-size:])), 0)
