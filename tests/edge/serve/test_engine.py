"""The engine behind the server, without one: what those who wait for a slot hear, and who gets it next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from edge.serve import engine as serve_engine
from edge.serve.engine import Engine
from runtimes.text import TextOptions, Token
from tests.edge.serve.scripted_server import Session


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """One slot, and a sign of life every hundredth of a second."""
    monkeypatch.setattr(serve_engine, "_BEAT_S", 0.01)
    session = Session(slots=1)
    engine = Engine(session, lambda: session, queue=8)
    yield engine
    engine.close()


def answer(engine: Engine, words: str) -> AsyncGenerator[Token | None]:
    prompt = engine._session.tokenize(words)
    return engine.tokens(prompt, TextOptions(), threading.Event())


async def text_of(engine: Engine, words: str) -> str:
    async with aclosing(answer(engine, words)) as tokens:
        return "".join([token.text async for token in tokens if token is not None])


async def wait_for_slots(engine: Engine) -> None:
    while engine.busy:
        await asyncio.sleep(0.01)


def test_who_waits_for_a_slot_hears_that_the_server_lives(engine) -> None:
    async def scene() -> None:
        async with aclosing(answer(engine, "pause 0.05")) as first:
            while await anext(first) is None:
                pass
            async with aclosing(answer(engine, "say mine")) as second:
                assert [await anext(second) for _ in range(3)] == [None] * 3
                await first.aclose()
                assert "".join([token.text async for token in second if token is not None]) == "mine"

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_slots_are_given_in_the_order_of_asking(engine) -> None:
    order: list[int] = []

    async def ask(number: int) -> None:
        await text_of(engine, "say so")
        order.append(number)

    async def scene() -> None:
        async with aclosing(answer(engine, "pause 0.01")) as first:
            while await anext(first) is None:
                pass
            waiting = []
            for number in range(4):
                waiting.append(asyncio.ensure_future(ask(number)))
                await asyncio.sleep(0.025)  # signs of life do not cost a place
        await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(scene(), 60))
    assert order == [0, 1, 2, 3]


@pytest.mark.parametrize("is_free", [False, True], ids=["while there is none", "as there is one"])
def test_who_leaves_the_queue_takes_no_slot_along(engine, is_free) -> None:
    async def scene() -> None:
        async with aclosing(answer(engine, "pause 0.01")) as first:
            while await anext(first) is None:
                pass
            second = answer(engine, "say nothing")
            assert await anext(second) is None
            if is_free:
                await first.aclose()
                await wait_for_slots(engine)
            await second.aclose()
        assert await text_of(engine, "say free") == "free"
        await wait_for_slots(engine)
        assert not engine._free.locked()

    asyncio.run(asyncio.wait_for(scene(), 60))
