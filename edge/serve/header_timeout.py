"""Close connections whose request headers do not arrive in time, or are too long.

uvicorn limits how long a connection may be idle between two requests, but waits forever for the headers of the first
request and for headers that have begun: clients that send a byte now and then could use up all connections. httptools,
which is compiled and therefore faster than h11, does not limit the size of the headers either.
"""

from __future__ import annotations

import asyncio
from typing import Any

_MAX_HEAD_BYTES = 32 << 10


def http_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return the class for uvicorn's option `http`.

    It closes a connection if headers are not complete `seconds` after connecting, or after their first byte.
    """

    class TimedProtocol(_protocol()):  # type: ignore[misc] # the base is one of two classes
        _limit: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch_head(0)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head(len(data))

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
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
                self._limit = self.loop.call_later(seconds, self.transport.close)

        def _stop_timer(self) -> None:
            self._head_bytes = 0
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

    return TimedProtocol


def _protocol() -> Any:
    """Return uvicorn's compiled parser, or its Python parser if that is not installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol
    return HttpToolsProtocol
