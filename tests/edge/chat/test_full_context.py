"""A full context on the real engine: kept text is not evaluated again, and an answer that has to end says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event

import pytest

from edge.chat.conversation import Conversation, TurnsDropped
from edge.llm.chat_template import ChatTemplate
from edge.llm.session import WorkerSession, open_session
from runtimes.llm.session import Finish, LoadOptions, TextOptions
from tests.edge.language_models import edge, stories

ENDLESS = 'root ::= [a-z ]+ "\\x01"\n'


@pytest.fixture(scope="module")
def session() -> Iterator[WorkerSession]:
    with open_session(stories(), LoadOptions(context=256, threads=1)) as found:
        yield found


@pytest.fixture
def finishes(session, monkeypatch) -> list[Finish]:
    """What each call of the engine cost, in their order."""
    seen: list[Finish] = []
    generate = session.generate

    def watched(*given):
        for token in generate(*given):
            if token.finish is not None:
                seen.append(token.finish)
            yield token

    monkeypatch.setattr(session, "generate", watched)
    return seen


def test_what_stays_after_a_shift_is_not_read_again(session, finishes) -> None:
    options = TextOptions(temperature=0, ignore_end=True, max_tokens=300)
    system = {"role": "system", "content": "There was a little girl named Lily who liked to play."}
    conversation = Conversation(
        session=session, template=ChatTemplate.named("alpaca", session.facts), options=options, messages=[system]
    )
    conversation.options = TextOptions(temperature=0, ignore_end=True, max_tokens=40)
    conversation.ask("Tell me of her.")
    list(conversation.answer(Event()))
    conversation.options = options
    conversation.ask("And then?")
    before = len(finishes)
    happenings = list(conversation.answer(Event()))
    dropped = [happening for happening in happenings if isinstance(happening, TurnsDropped)]
    assert dropped[0] == TurnsDropped(turns=1)
    assert any(happening.answer_tokens for happening in dropped[1:])
    after = finishes[before + 1 :]  # each call after the first went on behind a shift
    assert len(after) == len(dropped)
    for finish in after:
        assert finish.prompt_tokens > 100
        assert finish.prompt_tokens - finish.reused_tokens < 20, finish


def test_an_answer_under_a_grammar_that_fills_the_context_says_so(tmp_path) -> None:
    (tmp_path / "endless.gbnf").write_text(ENDLESS)
    words = (
        "chat",
        stories(),
        "Once",
        "--template",
        "plain",
        "--context",
        "64",
        "--grammar",
        tmp_path / "endless.gbnf",
    )
    done = edge(*words)
    assert done.returncode == 0
    assert "the answer is cut off: the context is full" in done.stderr
    told = json.loads(edge(*words, "--json").stdout)
    assert told["finish"] == "context"
    assert "cut off" in told["notes"][0]


def test_a_single_answer_ends_when_the_context_is_full() -> None:
    words = ("chat", stories(), "Once upon a time", "--template", "plain", "--context", "64", "--seed", "3")
    answer = json.loads(edge(*words, "--json").stdout)
    assert answer["finish"] == "context"
    assert answer["tokens"] <= 64
    assert answer["notes"] == ["the answer is cut off: the context is full (raise --context)"]
