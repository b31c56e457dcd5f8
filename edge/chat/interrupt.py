"""Make Ctrl+C stop a model's answer instead of the program.

Only POSIX terminals can turn off their echo; elsewhere it stays on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stops_answer() -> Iterator[threading.Event]:
    """Yield an event that Ctrl+C sets inside the block; the previous handler is restored afterwards."""
    cancel = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        # In a thread: the signal interrupts the main thread anywhere, perhaps while it holds the event's own lock.
        threading.Thread(target=cancel.set).start()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        with _without_echo():
            yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _without_echo() -> Iterator[None]:
    """Turn off the echo, so that typing does not mix with the answer. The next input line receives it."""
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
