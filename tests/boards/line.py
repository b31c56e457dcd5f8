"""A bad connection to a board: a proxy on loopback that delays, throttles, stalls and cuts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.boards.stand import Board

_CHUNK = 16 * 1024


@dataclass
class Line:
    """What it does to each connection; the fields may change while it is up.

    delay_s      each piece of data arrives this much later
    bytes_per_s  at most so many, each way; 0 is no limit
    stall_after  bytes, both ways together, after which nothing moves any more and nobody is told
    cut_after    bytes, both ways together, after which the connection is reset
    refuse       new connections are closed at once
    """

    delay_s: float = 0.0
    bytes_per_s: int = 0
    stall_after: int | None = None
    cut_after: int | None = None
    refuse: bool = False
    connections: int = field(default=0, init=False)
    carried: int = field(default=0, init=False)  # bytes, of all connections

    def heal(self) -> None:
        """A line like any other; connections that have stalled stay so."""
        self.delay_s, self.bytes_per_s = 0.0, 0
        self.stall_after = self.cut_after = None
        self.refuse = False


@contextmanager
def through(board: Board, line: Line) -> Iterator[Board]:
    """Yield the same board behind `line`: with the same name and host key, and another port and ssh_config."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(_listen(board.port, line))
    port: int = server.sockets[0].getsockname()[1]
    worker = threading.Thread(target=loop.run_forever, daemon=True)
    worker.start()
    config = board.config.with_name(f"ssh_config.{port}")
    known = board.known_hosts.with_name(f"known_hosts.{port}")
    _copy(board.known_hosts, known, f":{board.port} ", f":{port} ")
    _copy(board.config, config, f"Port {board.port}\n", f"Port {port}\n", str(board.known_hosts), str(known))
    try:
        yield replace(board, port=port, config=config, known_hosts=known)
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        worker.join()
        loop.close()


def _copy(source: Path, target: Path, *words: str) -> None:
    text = source.read_text()
    for old, new in zip(words[::2], words[1::2], strict=True):
        text = text.replace(old, new)
    target.write_text(text)


async def _listen(port: int, line: Line) -> asyncio.Server:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.connections += 1
        if line.refuse:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        count = _Count()
        try:
            await asyncio.gather(
                _pump(reader, far_writer, line, count),
                _pump(far_reader, writer, line, count),
            )
        except (_Cut, OSError):
            pass
        except asyncio.CancelledError:
            pass  # the line is taken down: asyncio would print a traceback for a handler that ends so
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    return await asyncio.start_server(accept, "127.0.0.1", 0)


class _Cut(Exception):  # noqa: N818 - an event, not a fault
    pass


@dataclass
class _Count:
    """The bytes that one connection has transferred, in both directions."""

    bytes: int = 0


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line, count: _Count) -> None:
    while data := await reader.read(_CHUNK):
        if line.delay_s:
            await asyncio.sleep(line.delay_s)
        if line.bytes_per_s:
            await asyncio.sleep(len(data) / line.bytes_per_s)
        if line.stall_after is not None and count.bytes + len(data) > line.stall_after:
            await asyncio.Event().wait()
        room = None if line.cut_after is None else max(0, line.cut_after - count.bytes)
        writer.write(data[:room])
        sent = len(data[:room])
        count.bytes += sent
        line.carried += sent
        if sent < len(data):
            await asyncio.wait_for(writer.drain(), 1)  # what came before the cut has arrived
            raise _Cut
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _close(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
