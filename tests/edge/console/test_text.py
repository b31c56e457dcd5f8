"""Text for a terminal."""

import io
import sys

import pytest

from edge.console.text import printable, width, wrap


def test_no_text_of_a_file_steers_the_terminal():
    assert printable("a\x1b[2Jb\nc é") == "a�[2Jb�c é"


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert width() == 72


def test_lines_break_between_words_and_paths_stay_whole():
    line = "energy is not measured: no counters in /sys/class/powercap-of-this-machine"
    assert wrap(line, None) == line
    assert wrap(line, 30).splitlines() == [
        "energy is not measured: no",
        "  counters in",
        "  /sys/class/powercap-of-this-machine",
    ]
