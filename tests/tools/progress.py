"""Run one step of the set-up, show that it is alive, and say how long it took.

python tests/tools/progress.py LABEL -- COMMAND ...            the command draws for itself, as pip does
python tests/tools/progress.py --count LABEL -- COMMAND ...    its build log becomes a counter: LABEL [31/120] 1:07

With `--count` the log is kept back and shown where the command fails. Exits with the command's status.
It runs before anything is installed: the standard library alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TextIO

# "[12/120] Building CXX object" of ninja, "[ 12%] Building CXX object" of CMake's Makefiles.
_OF_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_OF_MAKE = re.compile(r"^\s*\[\s*(\d+)%\]")
_KEPT_LINES = 60  # of the log, for an error
_PERCENT_A_LINE = 10  # where a line cannot be drawn over, as in the log of a CI


def steps_of(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """(done, all) for each line of a build log that tells them."""
    for line in lines:
        if found := _OF_NINJA.match(line):
            yield int(found[1]), int(found[2])
        elif found := _OF_MAKE.match(line):
            yield int(found[1]), 100


def duration(seconds: float) -> str:
    """Such as `41 s` and `3 min 07 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Counter:
    """Draws `LABEL [done/all]`: over itself on a terminal, else a line each ten per cent."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label, self._stream = label, stream
        self._drawn = stream.isatty()
        self._next_percent = 0
        self._began = time.monotonic()

    def show(self, done: int, total: int) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        line = f"{self._label} [{done}/{total}] {minutes}:{seconds:02d}"
        if self._drawn:
            self._stream.write(f"\r{line}\x1b[K")
        elif 100 * done >= self._next_percent * total:
            self._next_percent = (100 * done // max(total, 1)) // _PERCENT_A_LINE * _PERCENT_A_LINE + _PERCENT_A_LINE
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")


def run(label: str, command: list[str], *, count: bool, stream: TextIO = sys.stderr) -> int:
    """Run it to its end; its exit status."""
    began = time.monotonic()
    status, log = _counted(label, command, stream) if count else (subprocess.run(command, check=False).returncode, [])
    took = duration(time.monotonic() - began)
    if status:
        stream.writelines(log)
        print(f"{label}: failed after {took}", file=stream)
    else:
        print(f"{label}: took {took}", file=stream)
    return status


def _counted(label: str, command: list[str], stream: TextIO) -> tuple[int, list[str]]:
    """The exit status and the log's last lines."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    counter = Counter(label, stream)

    def keep(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            kept.append(line)
            yield line

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for done, total in steps_of(keep(process.stdout)):
            counter.show(done, total)
    counter.clear()
    return process.returncode, list(kept)


def main(words: list[str]) -> int:
    """The command line; see the module's docstring."""
    count = words[:1] == ["--count"]
    label, separator, *command = words[count:] if len(words) > count + 1 else ["", ""]
    if separator != "--" or not command:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return run(label, command, count=count)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
