"""One HTTP exchange below the level of routes: reading a bounded body, answering, noticing that the client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge.serve.problems import Problem
from runtimes.text import Finish

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BODY_BYTES = 8 << 20  # a context of a million tokens is half of it
_BODY_S = 30.0  # between two pieces of a body
_WRITE_S = 60.0  # for a client that has stopped reading
_DRAIN_S = 5.0


@dataclass
class Record:
    """What the access log is to say of an exchange."""

    finish: Finish | None = None
    has_left: bool = False


def record(scope: Scope) -> Record:
    """The record of this exchange."""
    kept: Record = scope.setdefault("edge.record", Record())
    return kept


async def read_json(receive: Receive) -> Any:
    """The body as JSON; Problem 413 as soon as it is too long, 408 where it does not come, 400 where it is no JSON."""
    body = bytearray()
    more = True
    while more:
        message = await _next(receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BODY_BYTES:
            raise too_long()
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON", code="invalid_json") from None


async def _next(receive: Receive) -> Message:
    try:
        message = await asyncio.wait_for(receive(), _BODY_S)
    except TimeoutError:
        raise Problem(408, "the rest of the request did not come") from None
    if message["type"] == "http.disconnect":
        raise Left
    return message


def too_long() -> Problem:
    """The answer to a body of more than MOST_BODY_BYTES."""
    return Problem(413, f"the request is longer than {MOST_BODY_BYTES >> 20} MiB", code="request_too_large")


class Left(Exception):  # noqa: N818 - it is nobody's error
    """The client has closed the connection."""


async def until_left(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, and cancel it as soon as the client closes the connection (then Left is raised)."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_until_closed(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Left
        working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


async def _until_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send an answer of known length."""
    await start(send, status, [*headers, (b"content-length", str(len(body)).encode())])
    await more(send, body, is_last=True)


async def start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Send the head of an answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def more(send: Send, body: bytes, *, is_last: bool = False) -> None:
    """Send a part of an answer; Left where the client has stopped reading."""
    try:
        async with asyncio.timeout(_WRITE_S):
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})
    except TimeoutError:
        raise Left from None


async def send_problem(problem: Problem, receive: Receive, send: Send) -> None:
    """Answer with an error; the rest of a body that is too long is thrown away as it comes."""
    body = problem.encoded()
    headers = [*problem.headers, (b"content-length", str(len(body)).encode())]
    if problem.status not in (408, 413):
        await start(send, problem.status, headers)
        await more(send, body, is_last=True)
        return
    await start(send, problem.status, [*headers, (b"connection", b"close")])
    await more(send, body)
    # A connection that is closed on a client in the middle of sending is reset, and the client never reads why.
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await more(send, b"", is_last=True)
