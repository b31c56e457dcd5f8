"""Access checks before every route (hosts, origins, keys, sizes), and security headers.

Hosts     On loopback without a key, any web page could reach the server by resolving its own name to 127.0.0.1 (DNS
          rebinding). Therefore the Host header must be a name of this machine's loopback there.
Origins   Browsers send the origin of a page with its requests to other sites. Others are rejected unless allowed.
Keys      Compared in constant time. The page itself and /health contain no secrets and need no key.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from edge.serve.errors import ApiError
from edge.serve.http import (
    MAX_BODY_BYTES,
    Application,
    ClientDisconnectedError,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    body_too_large,
    record,
    send_error,
    send_whole,
)
from edge.serve.metrics import RequestMetrics
from edge.serve.page import Page
from runtimes.host.loopback import is_loopback

_OPEN_PATH = "/health"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may access the server.

    key: The API key; None if no key is needed.
    only_loopback: Whether the Host header must be a loopback name or one of `hosts`.
    origins: The origins whose pages may send requests.
    hosts: Further allowed names in the Host header.
    """

    key: str | None
    only_loopback: bool
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Guard:
    """An ASGI application that checks access to another one, turns errors into responses, and writes the log."""

    def __init__(self, app: Application, rules: Rules, page: Page, meters: RequestMetrics) -> None:
        self._app = app
        self._rules = rules
        self._page = page
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, also if it fails."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = _Exchange(send, self._cors(headers))
        began = time.monotonic()
        try:
            await self._admit(scope, headers, receive, exchange)
        except ApiError as error:
            with suppress(ClientDisconnectedError):
                await send_error(error, receive, exchange)
        except ClientDisconnectedError:
            record(scope).has_left = not record(scope).is_counted
        finally:
            seconds = time.monotonic() - began
            self._meters.count_request(scope["method"], scope["path"], exchange.status, seconds, record(scope))

    async def _admit(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await send_whole(send, 204, [], b"")
            return
        path = scope["path"]
        is_open = path == _OPEN_PATH or (scope["method"] in ("GET", "HEAD") and self._page.has(path))
        if self._rules.key is not None and not is_open:
            # Anthropic's clients send the key in the header x-api-key.
            header = headers.get("authorization") or f"Bearer {headers.get('x-api-key', '')}"
            _check_key(header.removesuffix("Bearer "), self._rules.key)
        if _length(headers) > MAX_BODY_BYTES:
            raise body_too_large()
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = _hostname(host)
        if self._rules.only_loopback and not is_loopback(name, subdomains=True) and name not in self._rules.hosts:
            raise ApiError(403, f"'{host[:100]}' is not a name of this server (--allow-host)", code="wrong_host")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is None or self._is_allowed(origin) or origin.split("://")[-1] == headers.get("host"):
            return
        raise ApiError(403, f"pages of {origin[:100]} may not use this server (--allow-origin)", code="wrong_origin")

    def _is_allowed(self, origin: str) -> bool:
        return origin in self._rules.origins or "*" in self._rules.origins

    def _cors(self, headers: Mapping[str, str]) -> Headers:
        origin = headers.get("origin")
        if origin is None or not self._is_allowed(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
            # Clients add their own headers (x-stainless-...), and `*` would not cover the key's header.
            (b"access-control-allow-headers", headers.get("access-control-request-headers", "*").encode("latin-1")),
            (b"access-control-max-age", b"600"),
            (b"vary", b"origin"),
        ]


class _Exchange:
    """Sends to the client, adds headers, and records the status."""

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = [*_HEADERS, *headers]
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)


def _hostname(host: str) -> str:
    """Return a Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _check_key(header: str, key: str) -> None:
    scheme, _, value = header.partition(" ")
    # All digests have the same length, so the time of the comparison does not reveal the length of the key.
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (value.strip(), key)]
    if not (hmac.compare_digest(*digests) and scheme.lower() == "bearer"):
        message = "this server needs its API key, as 'Authorization: Bearer KEY'"
        raise ApiError(401, message, code="invalid_api_key" if header else "missing_api_key")
