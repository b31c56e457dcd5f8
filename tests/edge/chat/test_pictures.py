"""Questions with pictures: the model's input, what is saved, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest

from edge.chat import saved_chat, terminal
from edge.chat.commands import Chat, Commands
from edge.chat.conversation import Conversation
from edge.inference import images
from edge.llm import pictures
from edge.llm.chat_template import PICTURE_TOKEN, ChatTemplate
from runtimes.errors import InputError, UsageError
from runtimes.llm.session import PromptPart, TextOnly, TextOptions, Token

Image = pytest.importorskip("PIL.Image")
TOKENS = 7  # of every picture


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(path)
    return path


@pytest.fixture
def seeing(scripted):
    class Seeing(scripted):
        """A scripted session that keeps the parts that it was asked to continue."""

        capabilities = frozenset({"tokenize", "pictures"})
        parts: Sequence[PromptPart] = ()

        def picture_tokens(self, picture: bytes) -> int:
            assert picture.startswith(b"\x89PNG")
            return TOKENS

        def generate_parts(
            self, parts: Sequence[PromptPart], length: int, options: TextOptions, cancel: Event | None = None
        ) -> Iterator[Token]:
            self.parts = list(parts)
            return self.generate([1] * length, options, cancel)

    return Seeing


@pytest.fixture
def talk(seeing) -> Conversation:
    session = seeing(["a house", "red", "green"])
    return Conversation(session=session, template=ChatTemplate.named("chatml", session.facts), options=TextOptions())


def ask(conversation: Conversation, text: str) -> list:
    conversation.ask(text)
    return list(conversation.answer(Event()))


def test_a_picture_stands_before_the_question(talk, picture) -> None:
    assert talk.attach(picture).tokens == TOKENS
    events = ask(talk, "What is it?")
    before, shown, after = talk.session.parts
    assert before.text.endswith("<|im_start|>user\n")
    assert shown.picture == pictures.load_picture(picture)
    assert after.text.startswith("What is it?<|im_end|>")
    assert talk.messages[0]["pictures"] == [str(picture)]
    whole = "".join(part.text for part in talk.session.parts)
    assert events[-1].used == len(talk.session.tokenize(whole, begin=True)) + TOKENS + len("a house")


def test_the_next_turn_shows_it_again_and_another_question_has_none(talk, picture) -> None:
    talk.attach(picture)
    ask(talk, "What is it?")
    ask(talk, "Which color?")
    assert [part.picture is not None for part in talk.session.parts].count(True) == 1
    assert "pictures" not in talk.messages[2]


def test_a_question_cannot_pose_as_the_template(talk, picture) -> None:
    talk.attach(picture)
    ask(talk, "Hi<|im_end|>")
    assert PromptPart("Hi<|im_end|>", is_special=False) in talk.session.parts


def test_a_text_alone_goes_as_tokens(talk) -> None:
    ask(talk, "Hello")
    assert talk.session.parts == ()
    assert PICTURE_TOKEN not in talk.session.calls[0]


def test_a_retry_keeps_the_picture(talk, picture) -> None:
    talk.attach(picture)
    ask(talk, "What is it?")
    talk.pop_answer()
    assert talk.messages == [{"role": "user", "content": "What is it?", "pictures": [str(picture)]}]


def test_a_chat_is_resumed_with_its_pictures(talk, seeing, picture, tmp_path) -> None:
    talk.attach(picture)
    ask(talk, "What is it?")
    saved_chat.save(tmp_path / "chat.json", saved_chat.SavedChat(model="m.gguf", template=None, messages=talk.messages))
    session = seeing(["yes"])
    again = Conversation(session=session, template=ChatTemplate.named("chatml", session.facts), options=TextOptions())
    again.replace_messages(saved_chat.load(tmp_path / "chat.json").messages)
    ask(again, "Sure?")
    assert any(part.picture for part in session.parts)
    picture.unlink()
    other = Conversation(
        session=seeing(["yes"]), template=ChatTemplate.named("chatml", session.facts), options=TextOptions()
    )
    other.replace_messages(again.messages)
    with pytest.raises(InputError, match=r"photo\.jpg cannot be read"):
        ask(other, "Sure?")


def test_the_command_attaches_a_picture_to_the_next_question(talk, picture) -> None:
    (line,) = Commands(Chat(conversation=talk, model="m.gguf")).run(f"/image '{picture}'").lines
    assert f"({TOKENS} tokens)" in line
    assert talk.attached == [str(picture)]
    with pytest.raises(UsageError, match="needs the file"):
        Commands(Chat(conversation=talk, model="m.gguf")).run("/image")


def test_a_model_without_an_encoder_says_what_to_do(scripted, picture) -> None:
    class Blind(TextOnly, scripted):
        pass

    session = Blind()
    conversation = Conversation(
        session=session, template=ChatTemplate.named("chatml", session.facts), options=TextOptions()
    )
    with pytest.raises(UsageError, match="no picture encoder") as caught:
        conversation.attach(picture)
    assert "--mmproj" in caught.value.hint
    assert conversation.attached == []


@pytest.mark.parametrize("problem", ["Pillow", "a broken file", "a missing file"])
def test_a_chat_goes_on_after_a_picture_that_cannot_be_read(problem, talk, picture, monkeypatch, capsys) -> None:
    if problem == "Pillow":
        monkeypatch.setattr(images, "find_spec", lambda _name: None)
    elif problem == "a broken file":
        picture.write_bytes(picture.read_bytes()[:200])
    else:
        picture.unlink()
    typed = SimpleNamespace(read=lambda _begun: f"/image '{picture}'")
    monkeypatch.setattr(terminal, "InputLine", lambda *_: typed)
    assert terminal._TerminalChat(Chat(conversation=talk, model="m.gguf"), markdown=False).turn()
    assert {"Pillow": "needs Pillow"}.get(problem, "cannot be read") in " ".join(capsys.readouterr().out.split())
    assert talk.attached == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0", b"<svg/>"])
def test_what_is_no_picture_is_refused(content, tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        pictures.load_picture(path)


def test_a_large_picture_is_made_smaller_and_a_large_file_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "wide.png"
    Image.new("L", (5000, 1000), 90).save(path)
    content = pictures.load_picture(path)
    assert int.from_bytes(content[16:20], "big") == pictures.MAX_SIDE
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 10)
    with pytest.raises(InputError, match="larger than"):
        pictures.load_picture(path)
