"""A TCP proxy that delays, stalls and cuts connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Passes TCP connections on to a port of this machine. A context manager; its settings may change at any time.

    delay_s      how long each piece takes, either way
    cut_after    bytes towards the board after which all connections are cut, once; None never cuts
    stalled      while true, nothing goes through, and nothing is closed
    """

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.cut_after: int | None = None
        self.stalled = False
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._sent = 0

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections, as when the kernel notices that a cable was unplugged."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open = []

    def die(self) -> None:
        """Cut all connections, and accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which `close` does not
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(2**14):
                while self.stalled:
                    time.sleep(0.05)
                time.sleep(self.delay_s)
                target.sendall(piece)
                self._count(len(piece) if counted else 0)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, size: int) -> None:
        self._sent += size
        if self.cut_after is not None and self._sent > self.cut_after:
            self.cut_after = None
            self.cut()
