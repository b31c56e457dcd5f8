"""Start a child process, kill it together with its descendants, and read the end of its log.

A child leads its own process group, so Ctrl+C in the terminal does not reach it, and one signal kills all its
descendants. Process groups are POSIX. On Windows only the child is killed; its descendants exit when their stdin
closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Mapping, Sequence

MAX_LAST_WORDS_BYTES = 8192  # enough for the final error output of any engine


def start(command: Sequence[str], log: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start `command` with pipes for stdin and stdout; stderr goes to `log`.

    `log` is a file rather than a pipe, so the child never blocks on a full pipe that nobody reads.
    """
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True)


def start_text(
    command: Sequence[str], log: IO[bytes] | int, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `command` like `start`, with pipes that carry UTF-8 text, and with more environment `variables`."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **(variables or {})},
        start_new_session=True,
    )


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a process from `start` and its descendants. Does nothing once the process has been waited for."""
    # The PID is not reused until `wait` has reaped the process, so this cannot kill an unrelated process.
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        end_group(process.pid)


def end_group(number: int) -> None:
    """Kill the process group with this id (POSIX only)."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
            os.killpg(number, signal.SIGKILL)


def last_words(log: IO[bytes], max_bytes: int = MAX_LAST_WORDS_BYTES) -> str:
    """Return the last `max_bytes` of a child's log as text."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - max_bytes))
    return log.read().decode("utf-8", "replace").strip()


@contextmanager
def deadline(seconds: float | None, end: Callable[[], object]) -> Iterator[threading.Event]:
    """Call `end` if the block takes longer than `seconds` (None: no limit). The yielded event is set if it did."""
    expired = threading.Event()
    if seconds is None:
        yield expired
        return

    def expire() -> None:
        expired.set()
        end()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
