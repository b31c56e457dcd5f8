"""Ctrl+C while a model answers: it stops the answer, not the program."""

from __future__ import annotations

import signal
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
        yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)
