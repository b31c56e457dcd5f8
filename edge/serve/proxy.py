"""The HTTP application: it answers some routes itself, and checks and forwards all others to llama-server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.serve.errors import ApiError, api_error_of
from edge.serve.http import (
    Headers,
    Receive,
    Scope,
    Send,
    read_body,
    record,
    run_until_disconnected,
    send_part,
    send_whole,
    start_response,
)
from edge.serve.pictures import with_checked_pictures
from edge.serve.requests import GENERATING, RENDERING, Request, read_request
from edge.serve.upstream import Answer, ModelServer, RequestSlots, UpstreamError
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError

if TYPE_CHECKING:
    from edge.serve.metrics import RequestMetrics
    from edge.serve.page import Page
    from edge.serve.template_guard import TemplateGuard

_JSON = (b"content-type", b"application/json")
_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would buffer the stream
]
_METRICS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_STARTED = b"process-start-time-unix"  # llama-server's header with its metrics
_KEEP_ALIVE = b": the model is working\n\n"
_KEEP_ALIVE_S = 10.0  # between two comments in a stream, until llama-server begins to answer
_MAX_ANSWER_BYTES = 64 << 20  # of responses that are read completely here: errors, lists, metrics
_TAIL_BYTES = 4096  # of a response, which has its timings at the end
_TIMING = re.compile(rb'"(cache_n|prompt_n|prompt_ms|predicted_n|predicted_ms)":\s*([0-9.]+)')
# What llama-server reports as its own failure, with status 500, but is a mistake in the request; and OpenAI's codes.
_CLIENTS_MISTAKES = (
    (re.compile(r"Failed to parse (messages|tools)|\[json\.exception\.(type_error|out_of_range)"), "invalid_type"),
    (re.compile(r"\[json\.exception\.parse_error"), "invalid_json"),
    (re.compile(r"^vector|' is required$"), "invalid_value"),  # a token that is not in the vocabulary; a missing field
)
_OPENAI_CODES = {
    "exceed_context_size_error": "context_length_exceeded"
}  # llama-server's type of an error → OpenAI's code


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about the model that clients see.

    name: Its name on this server.
    context: The context length of a slot, in tokens.
    slots: The number of responses that can be generated at the same time.
    quantization: The type of its weights.
    meta: Additional values for its entry in `/v1/models`.
    """

    name: str
    context: int
    slots: int
    quantization: str
    meta: JsonObject


@dataclass(frozen=True, kw_only=True)
class ProxyContext:
    """What the routes share."""

    facts: Facts
    engine: ModelServer
    places: RequestSlots
    meters: RequestMetrics
    page: Page
    template: TemplateGuard
    sees_pictures: bool = False


class Proxy:
    """An ASGI application without access checks.

    Raises ApiError, and ClientDisconnectedError if the client closes the connection.
    """

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._has_tools: bool | None = None  # whether the chat template supports tools; None if that is not known yet
        self._routes: dict[tuple[str, str], Callable[[Send], Awaitable[None]]] = {
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"].replace("HEAD", "GET"), scope["path"]
        route = self._routes.get((method, path))
        if route is not None:
            await route(send)
        elif method == "GET" and path in self._context.page.files:
            file = self._context.page.files[path]
            await send_whole(send, 200, file.headers, file.body)
        elif method == "GET" and path.startswith("/v1/models/"):
            await self._model(path.removeprefix("/v1/models/"), send)
        else:
            await self._pass_on(scope, receive, send)

    async def _health(self, send: Send) -> None:
        is_well = self._context.engine.is_ready and not self._context.places.is_stopping
        await _send_json(send, {"status": "ok" if is_well else "loading"}, 200 if is_well else 503)

    async def _metrics(self, send: Send) -> None:
        """Send edge's metrics, followed by llama-server's."""
        headers, forwarded = [_METRICS], b""
        try:
            async with self._context.engine.upstream.ask("GET", "/metrics") as answer:
                if answer.status == 200:
                    forwarded = await answer.body(_MAX_ANSWER_BYTES)
                    started = answer.headers.get(_STARTED.decode())
                    headers += [(_STARTED, started.encode("latin-1"))] if started else []
        except UpstreamError:
            pass  # `edge_engine_up` is 0 then
        await send_whole(send, 200, headers, self._context.meters.exposition() + forwarded)

    async def _models(self, send: Send) -> None:
        await _send_json(send, await self._list())

    async def _model(self, name: str, send: Send) -> None:
        if name != self._context.facts.name:
            message = f"there is no model '{name[:100]}' on this server; its model is '{self._context.facts.name}'"
            raise ApiError(404, message, param="model", code="model_not_found")
        await _send_json(send, (await self._list())["data"][0])

    async def _list(self) -> Any:
        """Return llama-server's list of models, with the facts known here added."""
        await self._ready()
        facts = self._context.facts
        try:
            async with self._context.engine.upstream.ask("GET", "/v1/models") as answer:
                models = json.loads(await answer.body(_MAX_ANSWER_BYTES))
        except (UpstreamError, ValueError):
            models = {"object": "list", "data": [{"object": "model", "created": 0, "owned_by": "llamacpp"}]}
        entry = models["data"][0]
        entry["id"] = facts.name
        entry["meta"] = {**(entry.get("meta") or {}), **facts.meta}
        return models

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST", "DELETE"):
            raise ApiError(405, f"this server does not support {method} {path[:100]}")
        body = await read_body(receive) if method == "POST" else b""
        template = self._context.template
        request = read_request(path, body, stops=template.stops, marks=template.marks)
        if self._context.sees_pictures and path in (*RENDERING, *GENERATING):
            content = await asyncio.to_thread(with_checked_pictures, request.content)
            request = replace(request, content=content)
        if path in RENDERING:
            if template.is_watched:
                await asyncio.to_thread(template.check, request.conversation, request.tools)
            else:
                template.check(request.conversation, request.tools)
            if request.ends_with_picture and self._context.sees_pictures:
                await asyncio.to_thread(template.check_picture_at_end, request.conversation)
        if self._context.places.is_stopping:
            raise _stopping_error()
        if request.requires_call:
            await self._check_tools()

        async def work() -> None:
            if path in GENERATING:
                with self._context.places.take():
                    await self._relay(scope, request, send)
            else:
                await self._relay(scope, request, send)

        await run_until_disconnected(receive, work())

    async def _check_tools(self) -> None:
        """Raise ApiError 400 if the template has no calls of tools: llama-server then ignores that one is required."""
        if self._has_tools is None:
            await self._ready()
            try:
                async with self._context.engine.upstream.ask("GET", "/props") as answer:
                    able = json.loads(await answer.body(_MAX_ANSWER_BYTES)).get("chat_template_caps") or {}
            except (UpstreamError, ValueError):
                return  # forwarding the request reports why
            self._has_tools = able.get("supports_tool_calls") is not False
        if not self._has_tools:
            message = "'tool_choice' requires a call, but the model's chat template does not support tools"
            raise ApiError(400, message, param="tool_choice", code="unsupported_value")

    async def _relay(self, scope: Scope, request: Request, send: Send) -> None:
        """Forward the request and its response; a failure before the response begins gets the right status."""
        target = scope["raw_path"].decode("ascii", "replace")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("ascii", "replace")
        kind = _header(scope, b"content-type")
        if kind.startswith("application/x-www-form-urlencoded"):
            kind = ""  # clients such as curl send this type with JSON
        encoding = _header(scope, b"accept-encoding") if self._context.page.has(scope["path"]) else ""
        response = _Response(send, request.streams)
        async with AsyncExitStack() as stack:
            try:
                ask = self._ask(stack, scope["method"], target, request.content, kind, encoding)
                asking = asyncio.ensure_future(ask)
                answer = await response.wait(asking)
                await self._send_back(scope, answer, response)
            except UpstreamError as error:
                await response.fail(await self._failure(error))
            except ApiError as error:
                await response.fail(error)

    async def _ask(
        self, stack: AsyncExitStack, method: str, target: str, content: bytes, kind: str, encoding: str
    ) -> Answer:
        """Send a request to llama-server, once more if it had died before it received the first one."""
        for is_last in (False, True):
            await self._ready()
            try:
                exchange = self._context.engine.upstream.ask(method, target, content, kind, encoding)
                return await stack.enter_async_context(exchange)
            except UpstreamError as error:
                if is_last or error.was_connected:
                    raise
                await self._context.engine.wait_until_ended()
        raise AssertionError

    async def _ready(self) -> None:
        try:
            await self._context.engine.ready()
        except EdgeError as error:
            if self._context.places.is_stopping:
                raise _stopping_error() from None
            message = f"the model is not available: {api_error_of(error).message}"
            raise ApiError(503, message, code="engine_unavailable", retry_after=5) from None

    async def _failure(self, error: UpstreamError) -> ApiError:
        """Return the error of a response that was cut; a client that has it can ask again at once.

        A killed process may close this connection before the socket on which it listens.
        """
        if self._context.places.is_stopping:
            return _stopping_error()
        await self._context.engine.wait_until_ended()
        return ApiError(503, f"the model's process has ended: {error}", code="engine_unavailable", retry_after=1)

    async def _send_back(self, scope: Scope, answer: Answer, response: _Response) -> None:
        if answer.status >= 400:
            status, body = _openai_error(answer.status, await answer.body(_MAX_ANSWER_BYTES))
            await response.send_whole(status, [_JSON], body)
            return
        tail = b""
        kind = answer.headers.get("content-type", "application/octet-stream")
        headers = _STREAM if kind.startswith("text/event-stream") else [(b"content-type", kind.encode("latin-1"))]
        if "content-encoding" in answer.headers:
            headers = [*headers, (b"content-encoding", answer.headers["content-encoding"].encode("latin-1"))]
        if "content-length" in answer.headers and not response.has_begun:
            headers = [*headers, (b"content-length", answer.headers["content-length"].encode("latin-1"))]
        await response.begin(answer.status, headers)
        async for part in answer.parts:
            tail = (tail + part)[-_TAIL_BYTES:]
            await response.send_part(part)
        record(scope).count(dict(_TIMING.findall(tail[max(tail.rfind(b'"timings"'), 0) :])))
        await response.end()


class _Response:
    """The response to a client, which may begin before llama-server's does, and is always ended properly."""

    def __init__(self, send: Send, streams: bool) -> None:
        self._send = send
        self._streams = streams
        self.has_begun = False

    async def wait(self, asking: asyncio.Future[Answer]) -> Answer:
        """Wait for `asking`; a client that reads a stream gets keep-alive comments meanwhile."""
        try:
            while not (await asyncio.wait({asking}, timeout=_KEEP_ALIVE_S if self._streams else None))[0]:
                await self.begin(200, _STREAM)
                await send_part(self._send, _KEEP_ALIVE)
            return asking.result()
        except BaseException:
            asking.cancel()
            await asyncio.wait({asking})
            raise

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the status and headers, unless they were sent before."""
        if not self.has_begun:
            self.has_begun = True
            await start_response(self._send, status, headers)

    async def send_part(self, part: bytes) -> None:
        """Send a part of the response."""
        await send_part(self._send, part)

    async def end(self) -> None:
        """Send the end of the response."""
        await send_part(self._send, b"", is_last=True)

    async def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete response; as an event if a stream has begun."""
        if self.has_begun:
            await send_part(self._send, b"data: " + b" ".join(body.splitlines()) + b"\n\n", is_last=True)
        else:
            await send_whole(self._send, status, headers, body)

    async def fail(self, error: ApiError) -> None:
        """Send an error; raise it if nothing has been sent yet."""
        if not self.has_begun:
            raise error
        if self._streams:
            await send_part(self._send, b"\n\ndata: " + error.encode() + b"\n\n", is_last=True)
            return
        raise ConnectionAbortedError  # the client sees from the length that the response is incomplete


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _openai_error(status: int, body: bytes) -> tuple[int, bytes]:
    """Return an error of llama-server with the code that OpenAI's clients know, and 400 for what is the client's."""
    try:
        document = json.loads(body)
        error = document["error"]
        code = _OPENAI_CODES.get(error["type"])
        mistake = next((code for pattern, code in _CLIENTS_MISTAKES if pattern.search(error["message"])), None)
    except (ValueError, KeyError, TypeError):
        return status, body
    if code is not None:
        error["code"] = code
    elif mistake is not None:
        status = 400
        error |= {"code": mistake, "type": "invalid_request_error"}
    else:
        return status, body
    return status, json.dumps(document, ensure_ascii=False).encode()


def _stopping_error() -> ApiError:
    return ApiError(503, "the server is stopping", code="stopping", retry_after=5)


async def _send_json(send: Send, value: Any, status: int = 200) -> None:
    await send_whole(send, status, [_JSON], json.dumps(value, ensure_ascii=False).encode())
