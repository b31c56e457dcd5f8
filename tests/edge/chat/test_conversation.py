"""Answers as events: which text is kept, which is dropped, and the notes about it."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest

from edge.chat.conversation import AnswerSummary, Conversation, PromptProgress, TextDelta, TurnsDropped
from edge.llm.chat_template import ChatTemplate
from runtimes.errors import InputError, UsageError
from runtimes.llm.session import TextOptions


@pytest.fixture
def talk(scripted):
    def begin(*answers, template="chatml", messages=(), options=None, **more) -> Conversation:
        session = scripted(answers, **more)
        chosen = ChatTemplate.named(template, session.facts)
        return Conversation(session=session, template=chosen, options=options or TextOptions(), messages=list(messages))

    return begin


def _ask(conversation: Conversation, text: str) -> list:
    conversation.ask(text)
    return list(conversation.answer(Event()))


def _text(events: list) -> str:
    return "".join(happening.text for happening in events if isinstance(happening, TextDelta))


def test_an_answer_streams_and_becomes_a_message(talk) -> None:
    conversation = talk("Hello there.")
    events = _ask(conversation, "Hi")
    assert _text(events) == "Hello there."
    assert conversation.messages[-1] == {"role": "assistant", "content": "Hello there."}
    last = events[-1]
    assert isinstance(last, AnswerSummary)
    assert (last.reason, last.tokens, last.seed) == ("stop", 12, 7)
    assert last.used == len(conversation.session.calls[0]) + 12


def test_the_next_turn_reads_only_what_is_new(talk) -> None:
    conversation = talk("One.", "Two.")
    _ask(conversation, "a" * 50)
    last = _ask(conversation, "b")[-1]
    assert last.new_tokens < 50
    assert last.reused_tokens > 50


def test_an_answer_that_is_cancelled_is_kept_as_stopped_and_can_go_on(talk, scripted) -> None:
    cancel = Event()
    conversation = talk("abcdef", "ghi")
    conversation.session._on_token = lambda: conversation.session._read[-1] == 100 + ord("c") and cancel.set()
    conversation.ask("Go")
    assert list(conversation.answer(cancel))[-1].reason == "cancelled"
    assert conversation.messages[-1] == {"role": "assistant", "content": "abc", "stopped": True}
    list(conversation.resume(Event()))
    assert conversation.messages[-1] == {"role": "assistant", "content": "abcghi"}
    first, second = conversation.session.calls
    assert second == [*first, *(100 + ord(character) for character in "abc")]


def test_a_question_without_answer_is_replaced_by_the_next(talk) -> None:
    conversation = talk("Yes.")
    cancel = Event()
    cancel.set()
    conversation.ask("First")
    list(conversation.answer(cancel))
    assert conversation.is_unanswered
    conversation.session.answers = ["Yes."]
    _ask(conversation, "Second")
    assert [message["content"] for message in conversation.messages] == ["Second", "Yes."]


def test_a_reader_that_leaves_in_the_middle_loses_nothing(talk) -> None:
    conversation = talk("abcdef")
    conversation.ask("Go")
    events = conversation.answer(Event())
    next(events)
    events.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": "a", "stopped": True}


def test_stop_texts_of_a_template_end_the_answer(talk) -> None:
    conversation = talk("Sure.<|im_end|>\n<|im_start|>user")
    events = _ask(conversation, "Hi")
    assert _text(events) == "Sure."
    assert events[-1].reason == "stop"
    assert conversation.messages[-1] == {"role": "assistant", "content": "Sure."}


def test_a_full_context_drops_the_oldest_turns_and_says_so(talk) -> None:
    conversation = talk(*["x" * 30] * 8, context=300, messages=[{"role": "system", "content": "KEEP"}])
    dropped = []
    for number in range(8):
        events = _ask(conversation, f"question {number}")
        dropped += [happening.turns for happening in events if isinstance(happening, TurnsDropped)]
    assert sum(dropped) == conversation.forgotten > 0
    assert len(conversation.messages) == 17  # what is dropped from the context stays in the chat
    last = conversation.session.detokenize(conversation.session.calls[-1])
    assert "KEEP" in last
    assert "question 7" in last
    assert "question 0" not in last


def test_a_context_that_fills_in_the_middle_of_an_answer_drops_turns_and_continues(talk) -> None:
    answer = "".join(chr(ord("a") + number % 26) for number in range(150))
    conversation = talk("short", answer, context=200)
    _ask(conversation, "first " * 5)
    events = _ask(conversation, "second")
    assert _text(events) == answer
    assert TurnsDropped(turns=1) in events
    assert "first" not in conversation.session.detokenize(conversation.session.calls[-1])


def test_an_answer_longer_than_the_context_loses_its_own_beginning(talk) -> None:
    answer = "".join(chr(ord("a") + number % 26) for number in range(500))
    conversation = talk(answer, context=120, messages=[{"role": "system", "content": "KEEP"}])
    events = _ask(conversation, "go")
    assert _text(events) == answer
    assert sum(happening.answer_tokens for happening in events if isinstance(happening, TurnsDropped)) > 300
    for call in conversation.session.calls:
        assert "KEEP" in conversation.session.detokenize(call)
    assert events[-1].tokens == 500
    assert events[-1].used <= 120


def test_an_answer_that_follows_a_grammar_ends_with_the_context(talk) -> None:
    conversation = talk("x" * 300, context=120, options=TextOptions(grammar="root ::= [x]+"))
    assert _ask(conversation, "go")[-1].reason == "context"


def test_a_limit_of_tokens_holds_across_a_shift(talk) -> None:
    conversation = talk("x" * 300, context=120, options=TextOptions(max_tokens=150))
    last = _ask(conversation, "go")[-1]
    assert (last.reason, last.tokens) == ("length", 150)


def test_a_long_prompt_tells_how_far_it_is(talk) -> None:
    conversation = talk("ok", context=4096)
    events = _ask(conversation, "x" * 2000)
    readings = [happening for happening in events if isinstance(happening, PromptProgress)]
    assert [reading.done for reading in readings] == sorted({reading.done for reading in readings})
    assert readings[0].done == 0
    assert 2000 < readings[0].total < 2100
    assert events[-1].new_tokens == readings[0].total
    assert events[-1].reused_tokens == 0


def test_take_back_and_retry(talk) -> None:
    conversation = talk("one", "two", messages=[{"role": "system", "content": "s"}])
    _ask(conversation, "q")
    conversation.pop_answer()
    assert conversation.is_unanswered
    list(conversation.answer(Event()))
    assert conversation.messages[-1]["content"] == "two"
    assert conversation.pop_turn() == "q"
    assert conversation.messages == [{"role": "system", "content": "s"}]
    with pytest.raises(UsageError):
        conversation.pop_turn()


def test_a_question_that_does_not_fit_leaves_the_chat_usable(talk) -> None:
    conversation = talk("ok", context=64)
    conversation.ask("x" * 100)
    with pytest.raises(InputError):
        list(conversation.answer(Event()))
    assert _text(_ask(conversation, "hi")) == "ok"


def test_plain_text_continues_where_it_was_stopped_and_begins_anew_where_it_ended(talk) -> None:
    conversation = talk("upon a time. The end.", "b", template="plain", options=TextOptions(max_tokens=4))
    _ask(conversation, "Once ")
    conversation.options = replace(conversation.options, max_tokens=None)
    conversation.session.answers = [" a time.", "two"]
    list(conversation.resume(Event()))
    _ask(conversation, "And ")
    assert conversation.session.detokenize(conversation.session.calls[-1], special=True) == (
        "<s>Once upon a time.<s>And "
    )


def test_a_long_prompt_that_was_stopped_tells_how_far_it_is_again(talk) -> None:
    conversation = talk("ok", context=4096)
    conversation.ask("x" * 2000)
    cancel = Event()
    events = conversation.answer(cancel)
    assert isinstance(next(events), PromptProgress)
    cancel.set()
    assert list(events)[-1].reason == "cancelled"
    assert conversation.is_unanswered
    conversation.session.answers = ["ok"]
    again = list(conversation.answer(Event()))
    assert [happening for happening in again if isinstance(happening, PromptProgress)]
    assert _text(again) == "ok"


def _stopped(text: str, *before: tuple[str, str]) -> list[dict]:
    """Turns that ended, and one whose answer was cut off, as a file of a chat holds them."""
    ended = [
        {"role": role, "content": said}
        for turn in before
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    return [*ended, {"role": "user", "content": "go"}, {"role": "assistant", "content": text, "stopped": True}]


def test_a_loaded_answer_that_is_longer_than_the_context_continues(talk) -> None:
    conversation = talk("END", context=120, messages=_stopped("x" * 300))
    events = list(conversation.resume(Event()))
    assert _text(events) == "END"
    assert sum(happening.answer_tokens for happening in events if isinstance(happening, TurnsDropped)) > 150
    assert conversation.messages[-1] == {"role": "assistant", "content": "x" * 300 + "END"}


def test_going_on_with_a_loaded_chat_says_which_turns_left(talk) -> None:
    turns = [(f"question {number}", "y" * 60) for number in range(4)]
    conversation = talk("END", context=300, messages=_stopped("begun ", *turns))
    events = list(conversation.resume(Event()))
    dropped = sum(happening.turns for happening in events if isinstance(happening, TurnsDropped))
    assert dropped == conversation.forgotten > 0
    assert "question 3" in conversation.session.detokenize(conversation.session.calls[-1])


def test_an_answer_that_cannot_go_on_stays(talk) -> None:
    conversation = talk("END", context=64, messages=[{"role": "system", "content": "x" * 80}, *_stopped("begun")])
    with pytest.raises(InputError):
        list(conversation.resume(Event()))
    assert conversation.messages[-1]["content"] == "begun"


def test_an_answer_continues_after_the_next_turn_was_taken_back(talk) -> None:
    conversation = talk("another", "END", messages=_stopped("begun "))
    _ask(conversation, "next")
    conversation.pop_turn()
    list(conversation.resume(Event()))
    assert conversation.messages[-1]["content"] == "begun END"
    assert conversation.session.detokenize(conversation.session.calls[-1]).endswith("begun ")


def test_under_a_grammar_an_answer_cannot_go_on(talk) -> None:
    options = TextOptions(max_tokens=3, json_schema="{}")
    conversation = talk('{"a": 1}', options=options)
    assert _ask(conversation, "go")[-1].reason == "length"
    assert not conversation.can_continue
    with pytest.raises(UsageError):
        list(conversation.resume(Event()))
    assert conversation.messages[-1]["content"] == '{"a'
