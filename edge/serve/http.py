"""One HTTP exchange below the level of routes: read a body of limited size, respond, detect a disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NotRequired, Required, TypedDict

from edge.serve.errors import ApiError

Headers = list[tuple[bytes, bytes]]
MAX_BODY_BYTES = 16 << 20  # including pictures; a context of a million tokens is a quarter of it
_BODY_S = 30.0  # between two pieces of a body
_DRAIN_S = 5.0


@dataclass(kw_only=True)
class Record:
    """What the access log and the metrics report about an exchange.

    is_counted: Whether the response contained llama-server's timings.
    has_left: Whether the client disconnected before the end.
    reused, read, written: Prompt tokens from the cache, evaluated prompt tokens, and generated tokens.
    read_ms, written_ms: The milliseconds spent on the latter two.
    """

    is_counted: bool = False
    has_left: bool = False
    reused: int = 0
    read: int = 0
    read_ms: float = 0.0
    written: int = 0
    written_ms: float = 0.0

    def count(self, timings: Mapping[bytes, bytes]) -> None:
        """Store llama-server's `timings`, if the response contained any."""
        if b"predicted_n" not in timings:
            return

        def number(name: bytes) -> float:
            return float(timings.get(name, 0))

        self.is_counted = True
        self.reused, self.read = int(number(b"cache_n")), int(number(b"prompt_n"))
        self.written = int(number(b"predicted_n"))
        self.read_ms, self.written_ms = number(b"prompt_ms"), number(b"predicted_ms")

    @property
    def per_second(self) -> float:
        """Generated tokens per second; 0 if none were generated."""
        return 1e3 * self.written / self.written_ms if self.written_ms > 0 else 0.0


# The keys of an ASGI scope that are used here, and the record of the exchange.
Scope = TypedDict(
    "Scope",
    {
        "type": str,
        "method": str,
        "path": str,
        "raw_path": bytes,
        "query_string": bytes,
        "headers": Headers,
        "edge.record": NotRequired[Record],
    },
)


class Message(TypedDict, total=False):
    """An ASGI event in either direction; its keys depend on its type."""

    type: Required[str]
    status: int
    headers: Headers
    body: bytes
    more_body: bool


Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def record(scope: Scope) -> Record:
    """Return the record of this exchange."""
    return scope.setdefault("edge.record", Record())


async def read_body(receive: Receive) -> bytes:
    """Read the whole body. Raises ApiError 413 as soon as it is too long, and 408 if it does not arrive in time."""
    body = bytearray()
    more = True
    while more:
        message = await _next(receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise body_too_large()
    return bytes(body)


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(_BODY_S):
            message = await receive()
    except TimeoutError:
        raise ApiError(408, "the rest of the request did not arrive") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    return message


def body_too_large() -> ApiError:
    """Return the error for a body of more than MAX_BODY_BYTES."""
    return ApiError(413, f"the request is longer than {MAX_BODY_BYTES >> 20} MiB", code="request_too_large")


class ClientDisconnectedError(Exception):
    """The client has closed the connection."""


async def run_until_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; if the client closes the connection meanwhile, cancel it and raise ClientDisconnectedError."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_until_closed(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnectedError
        working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


async def _until_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a response of known length."""
    await start_response(send, status, [*headers, (b"content-length", str(len(body)).encode())])
    await send_part(send, body, is_last=True)


async def start_response(send: Send, status: int, headers: Headers) -> None:
    """Send the status and headers of a response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_part(send: Send, body: bytes, *, is_last: bool = False) -> None:
    """Send a part of a response."""
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def send_error(problem: ApiError, receive: Receive, send: Send) -> None:
    """Send an error response; after 408 and 413, read and discard the rest of the body."""
    body = problem.encode()
    headers = [*problem.headers, (b"content-length", str(len(body)).encode())]
    if problem.status not in (408, 413):
        await start_response(send, problem.status, headers)
        await send_part(send, body, is_last=True)
        return
    await start_response(send, problem.status, [*headers, (b"connection", b"close")])
    await send_part(send, body)
    # If the connection were closed while the client is sending, it would be reset, and the client could not read this.
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await send_part(send, b"", is_last=True)
