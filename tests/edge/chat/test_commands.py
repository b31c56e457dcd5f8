"""Commands, settings and saved chats."""

from __future__ import annotations

import json
import os
from threading import Event

import pytest

from edge.chat import sampling_settings, saved_chat
from edge.chat.commands import Chat, Commands
from edge.chat.conversation import Conversation
from edge.chat.input_line import is_unfinished, join_lines
from edge.llm.chat_template import ChatTemplate
from runtimes.errors import InputError, UsageError
from runtimes.llm.session import TextOptions


@pytest.fixture
def chat(scripted, tmp_path, monkeypatch) -> Chat:
    monkeypatch.setenv("EDGE_CHATS", str(tmp_path / "chats"))
    session = scripted(["one", "two", "three"])
    conversation = Conversation(
        session=session, template=ChatTemplate.named("chatml", session.facts), options=TextOptions()
    )
    return Chat(conversation=conversation, model="model.gguf", save_as=saved_chat.path_of("mine"))


def _ask(chat: Chat, text: str) -> None:
    chat.conversation.ask(text)
    chat.answers += list(chat.conversation.answer(Event()))[-1:]


def _say(chat: Chat, line: str) -> list[str]:
    return list(Commands(chat).run(line).lines)


def test_help_names_every_command(chat) -> None:
    lines = _say(chat, "/help")
    for name in Commands(chat).names:
        assert any(line.startswith(f"{name} ") for line in lines)


@pytest.mark.parametrize(("typed", "near"), [("/retyr", "/retry"), ("/hlep", "/help"), ("/zzz", "/help")])
def test_a_misspelt_command_gets_the_nearest_suggestion(chat, typed, near) -> None:
    with pytest.raises(UsageError) as caught:
        _say(chat, typed)
    assert near in caught.value.hint


def test_undo_retry_and_edit(chat) -> None:
    _ask(chat, "first")
    _ask(chat, "second")
    before = list(chat.conversation.messages)
    assert Commands(chat).run("/edit").edit == "second"
    assert chat.conversation.messages == before  # until what was changed is said
    assert Commands(chat).run("/retry").answer_instead_of == before
    assert chat.conversation.is_unanswered
    _say(chat, "/undo")
    _say(chat, "/undo")
    assert chat.conversation.messages == []


def test_what_was_undone_is_not_resumed(chat) -> None:
    _ask(chat, "first")
    chat.save()
    _say(chat, "/undo")
    assert saved_chat.load(chat.save_as).messages == []


def test_no_options_make_no_file(chat) -> None:
    chat.save()
    assert not chat.save_as.exists()


def test_the_system_prompt_is_set_shown_and_removed(chat) -> None:
    _say(chat, "/system Be kind.")
    assert _say(chat, "/system") == ["system prompt: Be kind."]
    _say(chat, "/clear")
    assert chat.conversation.system == "Be kind."
    _say(chat, "/system none")
    assert chat.conversation.messages == []


def test_settings_change_by_name(chat) -> None:
    _say(chat, "/set temp 0.7")
    _say(chat, "/set top_k=3")
    _say(chat, "/set seed 5")
    assert (chat.conversation.options.temperature, chat.conversation.options.top_k) == (0.7, 3)
    assert chat.conversation.options.seed == 5
    _say(chat, "/set seed random")
    assert chat.conversation.options.seed is None
    assert len(_say(chat, "/set")) == len(sampling_settings.SETTINGS)
    _say(chat, "/set seed 4294967294")
    assert any(line.split()[:2] == ["seed", "4294967294"] for line in _say(chat, "/set"))


@pytest.mark.parametrize("wrong", ["/set temp", "/set tmep 1", "/set temp hot", "/set temp nan", "/set top_p 2"])
def test_a_wrong_setting_is_refused_and_changes_nothing(chat, wrong) -> None:
    before = chat.conversation.options
    with pytest.raises(UsageError):
        _say(chat, wrong)
    assert chat.conversation.options == before


def test_a_chat_is_saved_and_loaded(chat) -> None:
    _say(chat, "/system Be kind.")
    _ask(chat, "first")
    _say(chat, "/save other")
    _say(chat, "/clear")
    assert chat.save_as != saved_chat.path_of("other")  # clearing does not overwrite what was saved
    lines = _say(chat, "/load other")
    assert [message["content"] for message in chat.conversation.messages] == ["Be kind.", "first", "one"]
    assert any("first" in line for line in lines)
    assert chat.save_as == saved_chat.path_of("other")


def test_loading_what_is_not_there_changes_nothing(chat) -> None:
    _ask(chat, "first")
    with pytest.raises(UsageError):
        _say(chat, "/load typo")
    chat.save()
    assert [message["content"] for message in saved_chat.load(chat.save_as).messages] == ["first", "one"]


def test_a_chat_that_is_not_saved_stays_so_when_another_is_loaded(chat) -> None:
    _ask(chat, "first")
    chat.save()
    chat.save_as = None
    _say(chat, "/load mine")
    _ask(chat, "second")
    chat.save()
    assert len(saved_chat.load(saved_chat.path_of("mine")).messages) == 2


def test_saving_does_not_overwrite_another_chat(chat) -> None:
    _ask(chat, "first")
    _say(chat, "/save other")
    _say(chat, "/clear")
    _ask(chat, "second")
    with pytest.raises(UsageError, match="the chat 'other' already exists"):
        _say(chat, "/save other")
    assert saved_chat.load(saved_chat.path_of("other")).messages[0]["content"] == "first"
    assert chat.save_as != saved_chat.path_of("other")


def test_the_meter_follows_what_is_in_the_context(chat) -> None:
    _ask(chat, "first")
    full = chat.conversation.used
    _ask(chat, "second")
    assert chat.conversation.used > full
    _say(chat, "/save other")
    _say(chat, "/undo")
    assert 0 < chat.conversation.used < full + 60  # what follows the first turn is the prompt of the next one
    _say(chat, "/clear")
    assert chat.conversation.used == 0
    _say(chat, "/load other")
    assert chat.conversation.used > 0
    assert f" {chat.conversation.used}/512" in "\n".join(_say(chat, "/stats"))


def test_a_saved_chat_is_for_its_owner_alone(chat) -> None:
    _ask(chat, "secret")
    chat.save()
    assert chat.save_as.stat().st_mode & 0o077 == 0
    assert [file.name for file in chat.save_as.parent.iterdir()] == ["mine.json"]


def test_a_failing_write_leaves_the_chat_as_it_was(chat, monkeypatch) -> None:
    _ask(chat, "first")
    chat.save()
    _ask(chat, "second")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        chat.save()
    assert len(saved_chat.load(chat.save_as).messages) == 2
    assert [file.name for file in chat.save_as.parent.iterdir()] == ["mine.json"]


GOOD = {"edge_chat": 1, "model": "m", "template": None, "messages": [{"role": "user", "content": "x"}]}
BROKEN = {
    "no JSON": "{",
    "nested": "[" * 100_000,
    "another file": "[1]",
    "another version": json.dumps({**GOOD, "edge_chat": 99}),
    "no list": json.dumps({**GOOD, "messages": {}}),
    "a role of its own": json.dumps({**GOOD, "messages": [{"role": "x", "content": ""}]}),
    "content that is no text": json.dumps({**GOOD, "messages": [{"role": "user", "content": 3}]}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_chat_is_one_error(tmp_path, text) -> None:
    (tmp_path / "chat.json").write_text(text)
    with pytest.raises(InputError, match=r"chat\.json"):
        saved_chat.load(tmp_path / "chat.json")


def test_a_chat_that_is_not_there_names_those_that_are(chat) -> None:
    _ask(chat, "first")
    chat.save()
    with pytest.raises(UsageError) as caught:
        saved_chat.load(saved_chat.path_of("nine"))
    assert "mine" in caught.value.hint


def test_the_newest_chat_is_resumed(chat) -> None:
    _ask(chat, "first")
    chat.save()
    os.utime(chat.save_as, (1, 1))
    saved_chat.save(saved_chat.path_of("later"), chat.to_saved_chat())
    assert saved_chat.newest().stem == "later"


@pytest.mark.parametrize(
    ("typed", "is_open", "said"),
    [
        ("one", False, "one"),
        ("one\\", True, None),
        ("one\\\ntwo", False, "one\ntwo"),
        ('"""', True, None),
        ('"""one\n', True, None),
        ('"""\none\\\n  two\n"""', False, "one\\\n  two"),
        ('say """ and """ here', False, 'say """ and """ here'),
    ],
)
def test_several_lines_are_one_question(typed, is_open, said) -> None:
    assert is_unfinished(typed) is is_open
    if said is not None:
        assert join_lines(typed) == said
