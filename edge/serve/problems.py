"""Errors as OpenAI's clients expect them: a status, and {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from typing import Any

from runtimes.errors import EdgeError, HostError, InputError, UsageError, WorkerError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Problem(Exception):  # noqa: N818 - it is told to a client; nothing of ours went wrong
    """A request that is answered with an error.

    `param` names the field of the body that is to blame, `code` is OpenAI's word for programs, `retry_after` the
    seconds after which it is worth asking again.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The answer's headers, as ASGI has them."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers

    def encoded(self) -> bytes:
        """The body as it is sent."""
        return json.dumps(self.body, ensure_ascii=False).encode()


def problem_of(error: EdgeError) -> Problem:
    """What a client is told of one of our own errors."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, (InputError, UsageError)):
        return Problem(400, message)
    if isinstance(error, (WorkerError, HostError)):
        return Problem(503, message, code="engine_unavailable", retry_after=1)
    return Problem(500, message, code="engine_failed")
