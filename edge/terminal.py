"""What may be printed on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without control characters: names and labels come from files, and none may steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
