"""Run programs in a pseudo-terminal, and type into them."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from pexpect.fdpexpect import fdspawn

SIZE = (40, 100)  # rows, columns


class Terminal(fdspawn):
    """A program whose controlling terminal is a pseudo-terminal of the test; see pexpect for `expect` and `send`.

    pexpect's own way in forks the test process, which holds the threads and fork handlers of every engine by then: the
    child can die before it is the program, and nobody hears of it. Here `setsid` makes the terminal the program's.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, seconds: float) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(ours, SIZE)
        self.program = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd
        )
        os.close(theirs)
        super().__init__(ours, encoding="utf-8", timeout=seconds)

    def press_ctrl(self, letter: str) -> None:
        """Type a letter while Ctrl is held."""
        self.send(chr(ord(letter.upper()) - ord("@")))

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the program gets the signal."""
        termios.tcsetwinsize(self.child_fd, (rows, columns))

    def end(self) -> None:
        """Close the terminal, which ends the program."""
        self.close()
        try:
            self.program.wait(10)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()
