"""Sanitize and wrap text for the terminal, and print links as QR codes."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata

_OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """Replace control characters, because untrusted names and labels must not control the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def readable(text: str) -> str:
    """Remove escape sequences and bidirectional overrides from text of several lines, in any script.

    For the output of a language model: emoji joiners and wide spaces are kept.
    """
    return "".join("\ufffd" if _is_control(character) else character for character in text.replace("\r", ""))


def _is_control(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _OVERRIDES


def width() -> int | None:
    """Return the columns of the terminal on stdout; None if stdout is a file or a pipe, which needs no wrapping."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrap(line: str, columns: int | None) -> str:
    """Wrap a line between words, with two spaces before continuation lines; unchanged if `columns` is None."""
    if columns is None:
        return line
    return textwrap.fill(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def quantity(count: int, noun: str) -> str:
    """Return a number with its noun: "1 input", "20 inputs"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def print_code(link: str) -> None:
    """Print a link as a QR code for a phone's camera, if stdout is a terminal and segno is installed."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    segno.make(link, error="l").terminal(compact=True)
