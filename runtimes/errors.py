"""The exception hierarchy of this project.

    EdgeError
    ├── UsageError                       2  the command line, or an option, asks for something that does not exist
    ├── InputError                       3  an input file or array is unreadable, broken or does not fit
    ├── EngineError                      4  an engine failed
    │   └── EngineMissingError           4  an engine, or a library it needs, is not installed
    ├── RefusedError                     5  the device's profile says that this cannot work there
    ├── ProofError                       6  an artifact's outputs differ from its source's
    ├── HostError                        7  this machine, another host, or the connection between them
    │   ├── ConnectionLostError          7  in `edge.remote.ssh`: the connection to a host broke
    │   └── RemoteTimeoutError           7  in `edge.remote.ssh`: a host did not answer in time
    ├── WorkerError                      8  a worker process crashed or ran out of time
    │   ├── WorkerCrashedError           8  it exited without an answer, or raised an unexpected error
    │   ├── WorkerTimeoutError           8  it exceeded its time limit and was killed
    │   └── WorkerOutOfMemoryError       8  it ran out of memory
    └── SlowerError                      9  a model became slower than `--fail-above` allows

Three more never reach the user, because their callers convert them to one of these: `OpsetDowngradeError`
(`converters.onnx.opset_downgrade`), `TransferError` (`runtimes.standalone.receive`) and `UnknownProfileError`
(`device_profiles`); the latter two modules import nothing from this package.

A message says what happened and where; a hint says what to do next. Each adapter maps its engine's native
errors to this hierarchy in one place.
"""

from __future__ import annotations

from typing import Dict, Mapping, Sequence, Union

# The types of JSON values: what an error holds and what crosses between processes.
JsonValue = Union[None, bool, int, float, str, Sequence["JsonValue"], Mapping[str, "JsonValue"]]
JsonObject = Dict[str, JsonValue]


class EdgeError(Exception):
    """Base class of all errors that this project raises on purpose.

    branch: The machine-readable name of the error.
    exit_code: The exit status of the command line.
    """

    branch = "edge"
    exit_code = 1

    def __init__(self, message: str, hint: str = "", details: Mapping[str, JsonValue] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def as_dict(self) -> JsonObject:
        """Return the error as a JSON object with the keys `error`, `message`, `hint`, and `details` if it has any."""
        known: JsonObject = {"error": self.branch, "message": self.message, "hint": self.hint}
        return {**known, "details": self.details} if self.details else known


class UsageError(EdgeError):
    """The command line, or an option, asks for something that does not exist."""

    branch = "usage"
    exit_code = 2


class InputError(EdgeError):
    """An input file or array is unreadable, broken or does not fit."""

    branch = "input"
    exit_code = 3


class EngineError(EdgeError):
    """An engine failed."""

    branch = "engine"
    exit_code = 4


class EngineMissingError(EngineError):
    """An engine, or a library that it needs, is not installed."""


class RefusedError(EdgeError):
    """The device's profile says that this cannot work there."""

    branch = "refused"
    exit_code = 5


class ProofError(EdgeError):
    """An artifact's outputs differ from its source's."""

    branch = "proof"
    exit_code = 6


class HostError(EdgeError):
    """This machine, another host, or the connection between them failed."""

    branch = "host"
    exit_code = 7


class WorkerError(EdgeError):
    """A worker process crashed or ran out of time."""

    branch = "worker"
    exit_code = 8


class WorkerCrashedError(WorkerError):
    """The worker process exited without an answer, or raised an unexpected error."""


class WorkerTimeoutError(WorkerError):
    """The worker process exceeded its time limit and was killed."""


class WorkerOutOfMemoryError(WorkerError):
    """The worker process ran out of memory."""


class SlowerError(EdgeError):
    """A model became slower than the limit that was given."""

    branch = "slower"
    exit_code = 9


_BRANCHES: dict[str, type[EdgeError]] = {
    kind.branch: kind
    for kind in (UsageError, InputError, EngineError, RefusedError, ProofError, HostError, WorkerError, SlowerError)
}


def from_dict(error: Mapping[str, JsonValue]) -> EdgeError:
    """Rebuild the error from `as_dict`'s result. This is how errors cross a process boundary."""
    kind = _BRANCHES.get(str(error.get("error", "")), EdgeError)
    details = error.get("details")
    known = details if isinstance(details, Mapping) else None
    return kind(str(error.get("message", "unknown error")), str(error.get("hint", "")), known)


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return the first line of an error's text, cut to `limit` characters, or its class name if it has no text."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:limit]
