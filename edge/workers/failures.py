"""Turn the failure of a worker process into an error, from its answer or from its exit status and last output."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path

from runtimes.errors import (
    EdgeError,
    EngineMissingError,
    WorkerCrashedError,
    WorkerError,
    WorkerOutOfMemoryError,
    from_dict,
)

TIME_HINT = "allow it more time, or choose a smaller model"
_MEMORY_HINT = "close other programs, or choose a smaller model or input"
_SIGKILL = 9
# Lines of stack traces as printed by glog (TensorFlow, LiteRT) and sanitizers, headings included.
_FRAME = re.compile(r"@\s+(0x)?[0-9a-f]{4,}|#\d+\s|\*\*\*")


def describe_job(name: str, subject: str) -> str:
    """Describe a job for error messages: "'measure' of mobilenet.onnx"."""
    file = Path(subject).name
    return f"'{name}' of {file}" if file else f"'{name}'"


def error_from_answer(answer: Mapping[str, str], what: str) -> EdgeError:
    """Convert an error answer of the child to an exception; `what` describes the job if the worker itself failed."""
    message, hint, kind = answer.get("message", ""), answer.get("hint", ""), answer.get("kind")
    if kind == "MemoryError":
        return WorkerOutOfMemoryError(f"{what} {message}", _MEMORY_HINT)
    if kind == EngineMissingError.__name__:
        return EngineMissingError(message, hint)
    if answer["error"] == WorkerError.branch:
        return WorkerCrashedError(f"{what} {message}", hint)
    return from_dict(dict(answer))


def error_from_exit(status: int, what: str, words: str) -> WorkerError:
    """Explain why the process ended without an answer to the job `what`.

    status: The exit status, negative for a signal.
    words: The end of what the process printed.
    """
    if status == -_SIGKILL or "std::bad_alloc" in words:
        # Only the out-of-memory killer of Linux sends this signal to workers.
        return WorkerOutOfMemoryError(f"{what} was killed by the system, which ran out of memory", _MEMORY_HINT)
    how = f"crashed with {_signal_name(-status)}" if status < 0 else f"exited with status {status} and no answer"
    return WorkerCrashedError(
        f"{what} {how}{last_line(words)}", "check the model with `edge inspect`, or try another engine"
    )


def last_line(words: str) -> str:
    """Return the last line that is not a stack frame as ": …", or an empty string."""
    lines = [line.strip() for line in words.splitlines()]
    messages = [line for line in lines if line and not _FRAME.match(line)]
    return f": {messages[-1][:200]}" if messages else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
