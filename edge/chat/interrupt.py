"""Ctrl+C while a model answers: it stops the answer, not the program."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stops_answer() -> Iterator[threading.Event]:
    """The event that Ctrl+C sets inside of the block, as often as it is pressed; afterwards it is what it was."""
    cancel = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        # In a thread: this interrupts the main one anywhere, perhaps while it holds the event's own lock.
        threading.Thread(target=cancel.set).start()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        with _without_echo():
            yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _without_echo() -> Iterator[None]:
    """What is typed during an answer does not mix with it; it is there for the next input line."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
