"""The HTTP application: what each address answers."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.serve import asking, shapes
from edge.serve.answering import Piece, pieces
from edge.serve.exchange import Receive, Scope, Send, more, read_json, record, send_whole, start, until_left
from edge.serve.problems import Problem, problem_of
from runtimes.errors import EdgeError
from runtimes.text import TextSession

if TYPE_CHECKING:
    from edge.chat.templates import ChatTemplate
    from edge.serve.engine import Engine
    from edge.serve.meters import Meters
    from edge.serve.page import Page

Headers = list[tuple[bytes, bytes]]
_JSON = (b"content-type", b"application/json")
_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the stream
]
_METRICS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


@dataclass(frozen=True)
class House:
    """What the endpoints share. `template` is None for a model without one, which cannot chat; `hint` says so."""

    name: str
    engine: Engine
    meters: Meters
    page: Page
    template: ChatTemplate | None
    hint: str = ""
    created: int = 0


class Endpoints:
    """An ASGI application without guards; raises Problem, and Left when the client has gone."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._routes: dict[tuple[str, str], Callable[[Scope, Receive, Send], Any]] = {
            ("GET", "/"): self._page,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._text,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"].replace("HEAD", "GET"), scope["path"]
        if method == "GET" and path.startswith("/v1/models/"):
            self._check_model(path.removeprefix("/v1/models/"))
            await _send_json(send, self._entry())
            return
        route = self._routes.get((method, path))
        if route is None:
            is_known = any(path == known for _, known in self._routes)
            raise Problem(405 if is_known else 404, f"there is no {scope['method']} {path[:100]} here")
        await route(scope, receive, send)

    async def _page(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_whole(send, 200, self._house.page.headers, self._house.page.body)

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        is_well = self._house.engine.is_well
        await _send_json(send, {"status": "ok" if is_well else "loading"}, 200 if is_well else 503)

    async def _metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_whole(send, 200, [_METRICS], self._house.meters.exposition())

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _send_json(send, {"object": "list", "data": [self._entry()]})

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = asking.chat_ask(await read_json(receive))
        template = self._house.template
        if template is None:
            raise Problem(400, self._house.hint, code="no_chat_template")
        messages = ask.messages or []
        stops = (*ask.stops, *template.stops)
        question = lambda session: template.tokens(session, messages)  # noqa: E731 - it has to know both
        await self._answer(scope, receive, send, ask, stops, question, shapes.ChatShape())

    async def _text(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = asking.text_ask(await read_json(receive))
        await self._answer(scope, receive, send, ask, ask.stops, lambda session: _ids(session, ask), shapes.TextShape())

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        ask: asking.Ask,
        stops: tuple[str, ...],
        question: Callable[[TextSession], list[int]],
        shape: shapes.Shape,
    ) -> None:
        self._check_model(ask.model)
        form = shapes.Form(shape, self._house.name)

        async def work() -> None:
            with self._house.engine.place():
                prompt = await self._prompt(question)
                async with aclosing(pieces(self._house.engine, prompt, ask, stops)) as parts:
                    answer = _stream if ask.streams else _whole
                    await answer(scope, send, parts, form, ask)

        await until_left(receive, work())

    async def _prompt(self, question: Callable[[TextSession], list[int]]) -> list[int]:
        """The tokens to continue; Problem 400 where they do not fit."""
        try:
            prompt = await self._house.engine.ask(question)
        except EdgeError as error:
            raise problem_of(error) from None
        context = self._house.engine.facts.context
        if not prompt:
            raise Problem(400, "the prompt is empty", code="empty_prompt")
        if len(prompt) >= context:
            message = f"the prompt has {len(prompt)} tokens; the context holds {context}, the answer included"
            raise Problem(400, message, code="context_length_exceeded")
        return prompt

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self._house.name:
            message = f"there is no model '{name[:100]}' here: this server has '{self._house.name}'"
            raise Problem(404, message, param="model", code="model_not_found")

    def _entry(self) -> dict[str, Any]:
        return shapes.model_entry(self._house.name, self._house.engine.facts, self._house.created)


def _ids(session: TextSession, ask: asking.Ask) -> list[int]:
    if isinstance(ask.prompt, str):
        return session.tokenize(ask.prompt, special=True, begin=True)
    prompt, size = ask.prompt or [], session.facts.vocabulary
    if not all(0 <= token < size for token in prompt):
        raise Problem(400, f"'prompt' holds ids outside 0 to {size - 1}", param="prompt", code="invalid_value")
    return prompt


async def _whole(
    scope: Scope, send: Send, parts: AsyncIterator[Piece | None], form: shapes.Form, _ask: asking.Ask
) -> None:
    texts: list[str] = []
    async for piece in parts:
        if piece is None:
            continue
        texts.append(piece.text)
        if piece.finish is not None:
            record(scope).finish = piece.finish
            await _send_json(send, form.whole("".join(texts), piece))
            return
    raise Problem(500, "the engine ended without a reason", code="engine_failed")


async def _stream(
    scope: Scope, send: Send, parts: AsyncIterator[Piece | None], form: shapes.Form, ask: asking.Ask
) -> None:
    """Send the answer as it is made. What fails before its first token still gets the right status."""
    has_started = False
    try:
        async for piece in parts:
            if not has_started:
                has_started = True
                await start(send, 200, _STREAM)
                await more(send, form.opening())
            if piece is None:
                await more(send, shapes.ALIVE)
                continue
            await more(send, form.more(piece))
            if piece.finish is not None:
                record(scope).finish = piece.finish
                usage = form.usage(piece.finish) if ask.wants_usage else b""
                await more(send, usage + shapes.DONE, is_last=True)
                return
    except Problem as problem:
        if not has_started:
            raise
        await more(send, shapes.event(problem.body), is_last=True)


async def _send_json(send: Send, value: Any, status: int = 200) -> None:
    await send_whole(send, status, [_JSON], json.dumps(value, ensure_ascii=False).encode())


def now() -> int:
    """Seconds since 1970, as OpenAI's `created` has them."""
    return int(time.time())
