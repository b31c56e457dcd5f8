"""The thoughts of a reasoning model are folded, saved, and kept apart from its answer."""

from __future__ import annotations

import io
from threading import Event

import pytest

from edge.chat.commands import Chat, Commands
from edge.chat.conversation import Conversation, TextDelta, ThoughtDelta
from edge.chat.thought_line import ThoughtLine
from edge.chat.thoughts import ThoughtSplitter
from edge.llm.chat_template import ChatTemplate
from runtimes.errors import UsageError
from runtimes.llm.session import TextOptions

HARMONY = "<|channel|>analysis<|message|>two plus two<|end|><|start|>assistant<|channel|>final<|message|>4"
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}quiet{% else %}loud{% endif %}: "
TEMPLATE = "{% for message in messages %}{{ message.content }}{{ message.thought }}{{ message.raw }}|{% endfor %}"


def _split(text: str, size: int, prompt_end: str = "") -> tuple[str, str]:
    splitter = ThoughtSplitter(prompt_end)
    pieces = [piece for at in range(0, len(text), size) for piece in splitter.feed(text[at : at + size])]
    pieces += splitter.rest()
    thought = "".join(piece.text for piece in pieces if piece.is_thought)
    return thought, "".join(piece.text for piece in pieces if not piece.is_thought)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "prompt_end", "expected"),
    [
        ("<think>\nhm\n</think>\n\n4", "", ("\nhm\n", "4")),
        ("hm</think>4", "assistant\n<think>\n", ("hm", "4")),
        ("[THINK]hm[/THINK]4", "", ("hm", "4")),
        (HARMONY, "", ("two plus two", "4")),
        ("<think>cut of", "", ("cut of", "")),
        ("<think>a < b </thin", "", ("a < b </thin", "")),
        (" 4 < 5 and <think> is a mark", "", ("", " 4 < 5 and <think> is a mark")),
        ("an answer</think> it is", "", ("", "an answer</think> it is")),
        ("<th", "", ("", "<th")),
        ("  \n4", "", ("", "  \n4")),
    ],
)
def test_thought_and_answer_are_told_apart_wherever_the_pieces_end(text, prompt_end, expected, size) -> None:
    assert _split(text, size, prompt_end) == expected


def _conversation(scripted, answers, template="chatml", **options) -> Conversation:
    session = scripted(answers, template=TEMPLATE)
    chosen = ChatTemplate.named(template, session.facts)
    return Conversation(session=session, template=chosen, options=TextOptions(**options))


def test_an_answer_is_kept_without_its_thought_and_templates_do_not_get_it(scripted) -> None:
    conversation = _conversation(scripted, ["<think>hm</think>\n\n4", "5"])
    conversation.ask("2 + 2?")
    events = list(conversation.answer(Event()))
    assert "".join(event.text for event in events if isinstance(event, ThoughtDelta)) == "hm"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "4"
    assert conversation.messages[-1] == {"role": "assistant", "content": "4", "thought": "hm"}
    assert conversation.last_thought == "hm"
    conversation.ask("and 3?")
    list(conversation.answer(Event()))
    assert "hm" not in conversation.session.detokenize(conversation.session.calls[-1])


def test_the_marks_that_an_engine_leaves_out_are_read_from_their_tokens(scripted, monkeypatch) -> None:
    from tests.edge.chat import conftest

    monkeypatch.setattr(conftest, "MARKS", [*conftest.MARKS, "<think>", "</think>"])
    conversation = _conversation(scripted, ["TthoughtEanswer"])
    generate = conversation.session.generate

    def with_control_tokens(*arguments):
        for token in generate(*arguments):
            mark = {"T": "<think>", "E": "</think>"}.get(token.text)
            yield conftest.Token(conftest.MARKS.index(mark), "") if mark else token

    monkeypatch.setattr(conversation.session, "generate", with_control_tokens)
    conversation.ask("?")
    list(conversation.answer(Event()))
    assert conversation.messages[-1] == {"role": "assistant", "content": "answer", "thought": "thought"}


def test_a_thought_that_was_cut_off_continues(scripted) -> None:
    conversation = _conversation(scripted, ["<think>one ", "two</think>4"], max_tokens=11)
    conversation.ask("?")
    list(conversation.answer(Event()))
    assert conversation.messages[-1]["raw"] == "<think>one "
    assert conversation.can_continue
    conversation.options = TextOptions()
    list(conversation.resume(Event()))
    assert conversation.messages[-1] == {"role": "assistant", "content": "4", "thought": "one two"}


def test_a_template_that_only_joins_texts_has_no_thoughts(scripted) -> None:
    conversation = _conversation(scripted, ["<think>a tag</think>"], template="plain")
    conversation.ask("?")
    list(conversation.answer(Event()))
    assert conversation.messages[-1]["content"] == "<think>a tag</think>"


def test_thinking_is_switched_where_the_template_can(scripted) -> None:
    session = scripted(["a", "b"])
    with ChatTemplate(SWITCH, "switch", session.facts) as template:
        conversation = Conversation(session=session, template=template, options=TextOptions())
        commands = Commands(Chat(conversation=conversation, model="model"))
        assert list(commands.run("/think").lines) == ["thinking is left to the template"]
        assert list(commands.run("/think off").lines) == ["thinking is off"]
        conversation.ask("?")
        list(conversation.answer(Event()))
        assert session.detokenize(session.calls[-1]) == "quiet: "
        commands.run("/think on")
        list(conversation.answer(Event()))
        assert session.detokenize(session.calls[-1]) == "loud: "
    fixed = Commands(Chat(conversation=_conversation(scripted, []), model="model"))
    with pytest.raises(UsageError, match="cannot switch thinking"):
        fixed.run("/think off")


def test_the_last_thought_can_be_shown(scripted) -> None:
    conversation = _conversation(scripted, ["<think>one\ntwo</think>4"])
    commands = Commands(Chat(conversation=conversation, model="model"))
    assert list(commands.run("/thought").lines) == ["no thought"]
    conversation.ask("?")
    list(conversation.answer(Event()))
    assert list(commands.run("/thought").lines) == ["one", "two"]


def test_the_line_of_a_thought_is_removed_and_summed_up() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        line = ThoughtLine(stream)
        assert line.end() == ""
        line.feed("one \x1b[2J two\nthree")
        assert line.end().endswith(" s, 4 words")
        assert line.end() == ""
    assert "thinking: one" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert pipe.getvalue() == ""
