"""Every error that this project raises on purpose.

    EdgeError
    ├── UsageError          2  the command line, or an option, asks for something that does not exist
    ├── InputError          3  a file or array that was handed over is unreadable, broken or does not fit
    ├── EngineError         4  an engine failed
    │   └── EngineMissing   4  an engine, or a library it needs, is not installed
    ├── RefusedError        5  the device's profile says that this cannot work there
    ├── ProofError          6  an artifact does not answer as its source does
    ├── HostError           7  this machine, another host, or the line between them
    └── WorkerError         8  a worker process crashed or ran out of time

A message says what happened and where; a hint says what to do. Native errors of an engine are mapped
to this tree at one place per adapter.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of all deliberate errors.

    `branch` is the word that machines read, `exit_code` the status that the command line ends with.
    """

    branch = "edge"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The error as machines read it: keys `error`, `message`, `hint`."""
        return {"error": self.branch, "message": self.message, "hint": self.hint}


class UsageError(EdgeError):
    """The command line, or an option, asks for something that does not exist."""

    branch = "usage"
    exit_code = 2


class InputError(EdgeError):
    """A file or array that was handed over is unreadable, broken or does not fit."""

    branch = "input"
    exit_code = 3


class EngineError(EdgeError):
    """An engine failed."""

    branch = "engine"
    exit_code = 4


class EngineMissing(EngineError):  # noqa: N818 - read aloud: "engine missing"
    """An engine, or a library that it needs, is not installed."""


class RefusedError(EdgeError):
    """The device's profile says that this cannot work there."""

    branch = "refused"
    exit_code = 5


class ProofError(EdgeError):
    """An artifact does not answer as its source does."""

    branch = "proof"
    exit_code = 6


class HostError(EdgeError):
    """This machine, another host, or the line between them failed."""

    branch = "host"
    exit_code = 7


class WorkerError(EdgeError):
    """A worker process crashed or ran out of time."""

    branch = "worker"
    exit_code = 8


_BRANCHES: dict[str, type[EdgeError]] = {
    kind.branch: kind
    for kind in (UsageError, InputError, EngineError, RefusedError, ProofError, HostError, WorkerError)
}


def from_dict(error: dict[str, str]) -> EdgeError:
    """The error that `as_dict` described, as one of this tree; how errors cross a process boundary."""
    kind = _BRANCHES.get(error.get("error", ""), EdgeError)
    return kind(error.get("message", "unknown error"), error.get("hint", ""))


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of a native error's text, shortened to `limit` characters; its class name when it has none."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:limit]
