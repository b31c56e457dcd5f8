"""What stands before every route: who may ask, from where, and how much; headers that hold a browser back.

Hosts     On loopback without a key, any web page could reach the server by giving its own name the address 127.0.0.1
          (DNS rebinding). So the Host header has to be a name of this machine's loopback there.
Origins   Browsers send a page's origin with what it posts elsewhere. Others' pages are refused unless allowed.
Keys      Compared in constant time. The page itself and /health hold nothing secret and need none.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge.serve.exchange import (
    MOST_BODY_BYTES,
    Left,
    Message,
    Receive,
    Scope,
    Send,
    record,
    send_problem,
    send_whole,
    too_long,
)
from edge.serve.meters import Meters
from edge.serve.problems import Problem

_OPEN_PATHS = ("/", "/health")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(frozen=True)
class Rules:
    """`key` None: nobody needs one. `only_loopback`: the Host header is checked. `origins`: whose pages may ask."""

    key: str | None
    only_loopback: bool
    origins: tuple[str, ...] = ()


class Guard:
    """An ASGI application around another one; also the place where errors become answers, and the log is written."""

    def __init__(self, app: Any, rules: Rules, meters: Meters) -> None:
        self._app = app
        self._rules = rules
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = _Exchange(send, self._cors(headers))
        began = time.monotonic()
        try:
            await self._admit(scope, headers, receive, exchange)
        except Problem as problem:
            with suppress(Left):
                await send_problem(problem, receive, exchange)
        except Left:
            record(scope).has_left = record(scope).finish is None
        finally:
            seconds = time.monotonic() - began
            self._meters.answered(scope["method"], scope["path"], exchange.status, seconds, record(scope))

    async def _admit(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await send_whole(send, 204, [], b"")
            return
        if self._rules.key is not None and scope["path"] not in _OPEN_PATHS:
            _check_key(headers.get("authorization", ""), self._rules.key)
        if _length(headers) > MOST_BODY_BYTES:
            raise too_long()
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        if self._rules.only_loopback and not is_loopback(_hostname(host)):
            raise Problem(403, f"this server is not called '{host[:100]}'", code="wrong_host")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is None or self._is_allowed(origin) or origin.split("://")[-1] == headers.get("host"):
            return
        raise Problem(403, f"pages of {origin[:100]} may not ask here (--allow-origin)", code="wrong_origin")

    def _is_allowed(self, origin: str) -> bool:
        return origin in self._rules.origins or "*" in self._rules.origins

    def _cors(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        origin = headers.get("origin")
        if origin is None or not self._is_allowed(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            # Clients add headers of their own (x-stainless-...), and `*` would not cover the key's.
            (b"access-control-allow-headers", headers.get("access-control-request-headers", "*").encode("latin-1")),
            (b"access-control-max-age", b"600"),
            (b"vary", b"origin"),
        ]


class _Exchange:
    """The way back to the client: adds headers, remembers the status."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = [*_HEADERS, *headers]
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    """A Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _check_key(header: str, key: str) -> None:
    scheme, _, given = header.partition(" ")
    # Digests have one length, so that the time tells nothing of the key's either.
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given.strip(), key)]
    if not (hmac.compare_digest(*digests) and scheme.lower() == "bearer"):
        message = "this server needs its API key, as 'Authorization: Bearer KEY'"
        raise Problem(401, message, code="invalid_api_key" if header else "missing_api_key")
