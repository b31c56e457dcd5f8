"""uvicorn's connections, which are closed where a request's head does not come within its time.

uvicorn bounds the size of a head and how long a connection may lie idle between two requests, but waits without end for
the first head and for one that has begun: clients that send a byte now and then would take all connections.
"""

from __future__ import annotations

import asyncio
from typing import Any


def patient(seconds: float) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's `http`: a head has to be whole `seconds` after its first byte, or connecting."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._mind()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._mind()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _mind(self) -> None:
            """Let the time run while a head is waited for; more bytes of it do not lengthen it."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif self._limit is None:
                self._limit = self.loop.call_later(seconds, self.transport.close)

        def _forget(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

    return Patient
