"""Errors in OpenAI's format: a status, and the body {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json

from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError, HostError, InputError, UsageError, WorkerError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """An error response to a request.

    status: The HTTP status.
    message: The text for people.
    param: The field of the body that caused it.
    code: OpenAI's identifier of the error, for programs.
    retry_after: Seconds after which the client may try again; 0 sends no such header.
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
    def body(self) -> JsonObject:
        """The body of the response, as a JSON object."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response, in ASGI's form."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers

    def encode(self) -> bytes:
        """Return the body as bytes."""
        return json.dumps(self.body, ensure_ascii=False).encode()


def api_error_of(error: EdgeError) -> ApiError:
    """Convert an error of edge to an error response."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, (InputError, UsageError)):
        return ApiError(400, message)
    if isinstance(error, (WorkerError, HostError)):
        return ApiError(503, message, code="engine_unavailable", retry_after=1)
    return ApiError(500, message, code="engine_failed")
