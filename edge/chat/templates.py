"""From a conversation to the tokens that a model answers to.

A message is a mapping with `role` ("system", "user", "assistant"), `content`, and what else a template may read
(`stopped`: the answer was cut off by the user). The model's own template is used, or one that was asked for; none is
ever guessed. Templates of model files are rendered in a process of their own (`edge.chat.sandbox`).
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.chat.named_templates import NAMED
from edge.chat.sandbox import MOST_TEMPLATE_CHARACTERS, render
from edge.workers import TimedOut, Worker
from runtimes.errors import InputError, UsageError, WorkerError
from runtimes.text import ModelFacts, TextSession

Message = Mapping[str, Any]

_SECONDS = 10.0  # for one rendering: the process starts within one, even on a Raspberry Pi
_MOST_REMEMBERED = 1024  # messages
_ROLE = re.compile(r"[a-z][a-z_]{0,31}")
# Two code points that Unicode promises never to give a meaning: they stand around the place of a text that is spliced.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_SPLICED = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_HINT = "choose another template with --template"


class ChatTemplate:
    """A chat template, ready to render; a context manager. May be used from several threads.

    name   that of NAMED, a file's, or "the model's own"
    stops  texts that end an answer, beside the tokens that the model ends with
    folds_system   the template refuses system messages; the text is put before the first question instead
    """

    def __init__(self, source: str, name: str, facts: ModelFacts) -> None:
        self.source = source
        self.name = name
        self.stops: tuple[str, ...] = ()
        self.folds_system = False
        self._is_ours = False
        self._marks = {"bos_token": facts.bos_text, "eos_token": facts.eos_text}
        self._worker = Worker("edge.chat.sandbox")
        self._lock = threading.Lock()
        self._marked: dict[str, bool] = {}

    @classmethod
    def named(cls, name: str, facts: ModelFacts) -> ChatTemplate:
        """One of NAMED; UsageError for another word. It is ours, so that it needs no process to render in."""
        if name not in NAMED:
            near = difflib.get_close_matches(name, NAMED, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(NAMED)}"
            raise UsageError(f"'{name}' is no template's name and no file", hint)
        template = cls(NAMED[name].text, name, facts)
        template.stops, template._is_ours = NAMED[name].stops, True
        return template

    @property
    def is_plain(self) -> bool:
        """Whether it only joins the texts, for a model that was not trained to chat."""
        return self.name == "plain"

    def render(self, messages: Sequence[Message], *, answer: bool = True, **more: Any) -> str:
        """The text of a conversation; with `answer` it ends with what makes the model answer.

        `more` are values for templates that know them (`tools`, `enable_thinking`). InputError for a template that
        is broken, refuses this conversation, or takes more time or memory than any real one.
        """
        _check_roles(messages)
        if self.folds_system:
            messages = _folded(messages)
        try:
            return self._rendered(messages, answer, more)
        except InputError:
            if self.folds_system or not any(message["role"] == "system" for message in messages):
                raise
            text = self._or_none(_folded(messages), answer, more)
            if text is None:
                raise
            self.folds_system = True
            return text

    def tokens(self, session: TextSession, messages: Sequence[Message], **more: Any) -> list[int]:
        """The tokens of a conversation, with BOS exactly once where the model wants it.

        What messages contain is never read as the template's marks: a text in which the tokeniser would see some is
        spliced in as plain text, without the space around it.
        """
        safe, spliced = self._without_marks(session, messages)
        return self.tokenized(session, self.render(safe, **more), spliced)

    def tokenized(self, session: TextSession, text: str, spliced: Sequence[str] = ()) -> list[int]:
        """The tokens of a rendered text, `spliced` put in as plain text where its places are."""
        tokens: list[int] = []
        for index, part in enumerate(_SPLICED.split(text)):
            if index % 2:
                tokens += session.tokenize(spliced[int(part)], special=False)
            elif part or index == 0:
                begin = index == 0 and not self._begins(text)
                tokens += session.tokenize(part, special=True, begin=begin)
        return tokens

    def close(self) -> None:
        """End the process that renders."""
        with self._lock:
            self._worker.close()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begins(self, text: str) -> bool:
        mark = self._marks["bos_token"]
        return bool(mark) and text.startswith(mark)

    def _or_none(self, messages: Sequence[Message], answer: bool, more: Mapping[str, Any]) -> str | None:
        try:
            return self._rendered(messages, answer, more)
        except InputError:
            return None

    def _without_marks(self, session: TextSession, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        """The messages with a place instead of each content in which the tokeniser sees marks, and those contents."""
        safe: list[Message] = []
        spliced: list[str] = []
        for message in messages:
            content = message.get("content")
            if isinstance(content, str):
                content = content.replace(_OPEN, "").replace(_CLOSE, "")
                if self._has_marks(session, content):
                    spliced.append(content.strip())
                    content = f"{_OPEN}{len(spliced) - 1}{_CLOSE}"
                message = {**message, "content": content}
            safe.append(message)
        return safe, spliced

    def _has_marks(self, session: TextSession, content: str) -> bool:
        # Remembered, because a conversation is asked about as a whole for every turn and every fitting of it.
        found = self._marked.get(content)
        if found is None:
            found = session.tokenize(content, special=True) != session.tokenize(content, special=False)
            if len(self._marked) >= _MOST_REMEMBERED:
                self._marked.clear()
            self._marked[content] = found
        return found

    def _rendered(self, messages: Sequence[Message], answer: bool, more: Mapping[str, Any]) -> str:
        values = {**self._marks, "messages": list(messages), "add_generation_prompt": answer, **more}
        if self._is_ours:
            return render(self.source, values)
        job = {"job": "render", "template": self.source, "values": values}
        try:
            with self._lock:
                return str(self._worker.run(job, timeout_s=_SECONDS)["text"])
        except TimedOut:
            raise InputError(f"the chat template ({self.name}) takes longer than any real one", _HINT) from None
        except WorkerError as error:
            raise InputError(f"the chat template ({self.name}) fails: {error.message}", _HINT) from None


def choose_template(facts: ModelFacts, asked: str | None = None) -> ChatTemplate:
    """The template that was asked for (a name of NAMED, or a file of Jinja), else the model's own.

    UsageError where the model has none and none was asked for, and for a name that is neither.
    """
    if asked is not None:
        path = Path(asked)
        is_file = asked not in NAMED and path.is_file()
        return ChatTemplate(_read(path), path.name, facts) if is_file else ChatTemplate.named(asked, facts)
    if facts.template:
        return ChatTemplate(facts.template, "the model's own", facts)
    raise UsageError(
        f"{facts.name} has no chat template: how it was taught to chat, if it was, is not in its file",
        f"name one with --template: plain (it goes on with your text, for base models), {', '.join(_chats())}, "
        "or a file of Jinja",
    )


def _chats() -> list[str]:
    return [name for name in NAMED if name != "plain"]


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(MOST_TEMPLATE_CHARACTERS + 1)  # the sandbox refuses what is longer
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a template: {error}", "give a text file of Jinja") from None


def _check_roles(messages: Sequence[Message]) -> None:
    # Templates write the role between their marks.
    for message in messages:
        if not _ROLE.fullmatch(str(message.get("role"))):
            raise InputError(f"{message.get('role')!r} is no role", "use system, user or assistant")


def _folded(messages: Sequence[Message]) -> list[Message]:
    """The conversation without system messages, their text before the first question."""
    system = "\n\n".join(str(message["content"]) for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    for index, message in enumerate(rest):
        if message["role"] == "user":
            rest[index] = {**message, "content": f"{system}\n\n{message['content']}"}
            break
    return rest
