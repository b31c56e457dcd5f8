"""Close connections whose request headers do not arrive in time, or are too long, and those whose client does not read.

uvicorn limits how long a connection may be idle between two requests, but waits forever for the headers of the first
request, for headers that have begun, and for a client that has stopped reading: clients that send or read a byte now
and then could use up all connections. httptools, which is compiled and therefore faster than h11, does not limit the
size of the headers either.
"""

from __future__ import annotations

import asyncio
from typing import Any

_MAX_HEAD_BYTES = 32 << 10


def http_protocol(head_s: float, stalled_s: float) -> type[asyncio.Protocol]:
    """Return the class for uvicorn's option `http`.

    It closes a connection if headers are not complete `head_s` seconds after connecting, or after their first byte, and
    if the client's full buffer has not shrunk for `stalled_s` seconds.
    """

    class TimedProtocol(_protocol()):  # type: ignore[misc] # the base is one of two classes
        _limit: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch_head(0)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head(len(data))

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(stalled_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_stalled()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            self._stop_stalled()
            super().connection_lost(exc)

        def _watch_head(self, size: int) -> None:
            """Run the timer while headers are incomplete; further bytes do not restart it."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
                return
            self._head_bytes += size
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.transport.close()
            elif self._limit is None:
                self._limit = self.loop.call_later(head_s, self.transport.close)

        def _stop_timer(self) -> None:
            self._head_bytes = 0
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _stop_stalled(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

    return TimedProtocol


def _protocol() -> Any:
    """Return uvicorn's compiled parser, or its Python parser if that is not installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol
    return HttpToolsProtocol
