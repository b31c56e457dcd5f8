"""Responses of llama-server as they come from the network: whole, in pieces, and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from edge.serve.upstream import Upstream, UpstreamError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b"data: {}\n\n", b"data: 5\r\n\n\n", b"x" * 300]
BODY = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"


def _received(pieces: Sequence[bytes]) -> list[bytes]:
    """Return the parts of a response that arrives in these pieces."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.001)
        writer.close()
        answered.set()

    async def ask() -> list[bytes]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                async with Upstream(f"http://127.0.0.1:{port}", None).ask("GET", "/") as received:
                    return [part async for part in received.parts]
            finally:
                await answered.wait()

    answered = asyncio.Event()

    return asyncio.run(ask())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
def test_chunks_are_the_same_in_pieces_of_any_size(size: int) -> None:
    pieces = [BODY[place : place + size] for place in range(0, len(BODY), size)]
    assert b"".join(_received([HEAD, *pieces])) == b"".join(EVENTS)


def test_an_event_is_passed_on_before_the_next_one_arrives() -> None:
    first = BODY.index(b"\r\n", 4 + len(EVENTS[0]))
    assert _received([HEAD + BODY[:first], BODY[first:]])[0] == EVENTS[0]


@pytest.mark.parametrize("body", [BODY[:-5], BODY[:-30], b"", b"no chunks\r\n", b"y" * 5000])
def test_a_response_that_is_cut_off_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="in the middle of a response"):
        _received([HEAD + body])
