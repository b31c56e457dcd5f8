"""HTTP/1.1 to llama-server over a Unix socket (POSIX) or the network, with one connection for each request.

A client library would parse, copy and wrap every event of a stream. Here the bytes are forwarded as they arrive,
because every microsecond is taken from the threads that compute the model (tests/benchmarks/serve.py measures it).
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from edge.serve.errors import ApiError

_MAX_HEAD_BYTES = 64 << 10
_PART_BYTES = 64 << 10
_FRAME = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,15})[^\r\n]*\r\n")  # between two chunks: the length of the next one
_MAX_FRAME_BYTES = 1 << 10
_CONNECT_S = 30.0
_LONGEST_RETRY_S = 60


class UpstreamError(Exception):
    """llama-server cannot be reached (`was_connected` is False), or ended in the middle of a response."""

    def __init__(self, message: str, *, was_connected: bool) -> None:
        super().__init__(message)
        self.was_connected = was_connected


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response of llama-server.

    status: The HTTP status.
    headers: The headers, with names in lower case.
    parts: The parts of the body as they arrive; raises UpstreamError if it is incomplete.
    """

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]

    async def body(self, most: int) -> bytes:
        """Return the whole body. Raises UpstreamError if it has more than `most` bytes."""
        content = bytearray()
        async for part in self.parts:
            content += part
            if len(content) > most:
                raise UpstreamError(f"llama-server's response has more than {most} bytes", was_connected=True)
        return bytes(content)


class Upstream:
    """A llama-server.

    address: `unix:/path.sock`, or `http(s)://host:port/prefix`.
    key: Its API key, or None.
    """

    def __init__(self, address: str, key: str | None) -> None:
        self.address = address
        self._key = key
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "", encoding: str = ""
    ) -> AsyncIterator[Answer]:
        """Send a request and yield its response; leaving closes the connection, which cancels the rest.

        kind: The type of `body`; empty means JSON.
        encoding: How the response may be compressed; empty means not at all.
        """
        reader, writer = await self._connect()
        self._open.add(writer)
        try:
            try:
                writer.write(self._head(method, path, body, kind, encoding) + body)
                await writer.drain()
                yield await _answer(reader, method)
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                raise UpstreamError(f"llama-server closed the connection: {error}", was_connected=True) from None
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    def hang_up(self) -> None:
        """Close all connections, because llama-server does not exit while it streams on one."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                if self.address.startswith("unix:"):
                    return await asyncio.open_unix_connection(self.address[5:], limit=_MAX_HEAD_BYTES)
                parts = urlsplit(self.address)
                tls = ssl.create_default_context() if parts.scheme == "https" else None
                port = parts.port or (443 if tls else 80)
                return await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=_MAX_HEAD_BYTES)
        except (OSError, TimeoutError) as error:
            raise UpstreamError(getattr(error, "strerror", None) or str(error), was_connected=False) from None

    def _head(self, method: str, path: str, body: bytes, kind: str, encoding: str) -> bytes:
        parts = urlsplit(self.address)
        host, prefix = (parts.netloc, parts.path.rstrip("/")) if parts.netloc else ("localhost", "")
        lines = [f"{method} {prefix}{path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        if self._key:
            lines.append(f"Authorization: Bearer {self._key}")
        if encoding:
            lines.append(f"Accept-Encoding: {encoding}")
        if method not in ("GET", "HEAD"):
            lines += [f"Content-Type: {kind or 'application/json'}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if method == "HEAD" or status in (204, 304):
        return Answer(status=status, headers=headers, parts=_nothing())
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Answer(status=status, headers=headers, parts=_cut(_chunks(reader)))
    length = headers.get("content-length")
    return Answer(status=status, headers=headers, parts=_cut(_read_counted(reader, int(length) if length else None)))


async def _cut(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts, and convert all errors of an incomplete response to UpstreamError."""
    try:
        async for part in parts:
            yield part
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise UpstreamError(f"llama-server ended in the middle of a response: {error}", was_connected=True) from None


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for part in nothing:
        yield part


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the content of a chunked body, as one part what has arrived together: an event costs one step."""
    data, left = b"", 0  # what is not yet read of the body, and how much of it belongs to the current chunk
    while True:
        received = await reader.read(_PART_BYTES)
        if not received:
            raise EOFError("the connection was closed")
        data += received
        content: list[bytes] = []
        while data:
            if not left:
                frame = _FRAME.match(data)
                if frame is None:
                    break
                left, data = int(frame[1], 16), data[frame.end() :]
                if not left:
                    yield b"".join(content)
                    return
            content.append(data[:left])
            data = data[left:]
            left -= len(content[-1])
        if len(data) > _MAX_FRAME_BYTES:
            raise ValueError("its body is not in chunks")
        if content:
            yield b"".join(content)


async def _read_counted(reader: asyncio.StreamReader, length: int | None) -> AsyncIterator[bytes]:
    while length is None or length:
        part = await reader.read(_PART_BYTES if length is None else min(length, _PART_BYTES))
        if not part:
            if length is None:
                return
            raise EOFError("the connection was closed")
        length = None if length is None else length - len(part)
        yield part


class ModelServer(Protocol):
    """The server of the model: edge's own llama-server, or a running one."""

    upstream: Upstream
    restarts: int

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""

    async def ready(self) -> None:
        """Wait until it answers. Raises EdgeError if it does not."""

    async def wait_until_ended(self) -> None:
        """Wait for the end of a server that refuses connections, so that `ready` starts it again."""

    def stop(self) -> None:
        """End the running requests and reject new ones."""

    def close(self) -> None:
        """Release its resources."""


class RequestSlots:
    """The requests in progress and the queue, whose length is limited."""

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.present = 0
        self.is_stopping = False
        self._queue = queue
        self._mean_s = 1.0  # moving average of the last requests' durations

    @property
    def busy(self) -> int:
        """The number of requests in progress."""
        return min(self.present, self.slots)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        return max(self.present - self.slots, 0)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place for one request. Raises ApiError 429 if the queue is full."""
        if self.present >= self.slots + self._queue:
            expected = math.ceil(self._mean_s * (self.waiting + 1) / self.slots)
            retry = min(max(expected, 1), _LONGEST_RETRY_S)
            raise ApiError(429, "too many requests are waiting", code="queue_full", retry_after=retry)
        self.present += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.present -= 1
            self._mean_s += (time.monotonic() - began - self._mean_s) / 4
