"""One answer while it is made: from tokens to text, stop texts kept out of it, and what it cost."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edge.chat.stops import StopTexts
from edge.serve.asking import Ask
from edge.serve.engine import Engine
from edge.serve.problems import Problem
from runtimes.text import Finish

# Why the engine ended → OpenAI's word for it.
_REASONS = {"stop": "stop", "length": "length", "context": "length"}


@dataclass(frozen=True)
class Piece:
    """Some text that may be shown; the last one has `finish`, and `reason` in OpenAI's words: "stop" or "length"."""

    text: str
    finish: Finish | None = None
    reason: str | None = None


async def pieces(engine: Engine, prompt: list[int], ask: Ask, stops: Sequence[str]) -> AsyncGenerator[Piece | None]:
    """The answer to `prompt` as it is made; None is a sign of life.

    No piece ever holds a part of a stop text: what may be the beginning of one is held back. Problem 503 when the
    server is stopping.
    """
    cancel = threading.Event()
    stream = StopTexts(stops)
    async with aclosing(engine.tokens(prompt, ask.options, cancel)) as tokens:
        async for token in tokens:
            if token is None:
                yield None
                continue
            text = stream.feed(token.text)
            if stream.hit is not None:
                cancel.set()
            if token.finish is not None:
                yield _last(text + stream.rest(), token.finish, stream.hit is not None)
            elif text:
                yield Piece(text)


def _last(text: str, finish: Finish, has_stopped: bool) -> Piece:
    reason = "stop" if has_stopped else _REASONS.get(finish.reason)
    if reason is None:
        raise Problem(503, "the answer was cut off: the server is stopping", code="stopping")
    return Piece(text, finish, reason)
