"""What may be printed on a terminal, and how wide it is."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata

_OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """One line without control characters: names and labels come from files, and none may steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def readable(text: str) -> str:
    """Text of several lines, in any script, without what could steer a terminal or turn lines around.

    For what a model writes: joiners of emoji and wide spaces stay, escape sequences and bidirectional overrides go.
    """
    return "".join("\ufffd" if _steers(character) else character for character in text.replace("\r", ""))


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _OVERRIDES


def width() -> int | None:
    """The columns of the terminal that stdout is; None where it is a file or a pipe, whose lines have no end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(line: str, columns: int | None) -> str:
    """The line broken between words, what follows indented by two; as it is where `columns` is None."""
    if columns is None:
        return line
    return textwrap.fill(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
