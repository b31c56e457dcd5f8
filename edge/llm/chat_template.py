"""Turn a conversation into the tokens of a prompt.

A message is a mapping with `role` ("system", "user", "assistant"), `content`, and anything else that a template reads
(`stopped`: the answer was cut off by the user). Its `pictures`, if any, are shown before its content. The model's own
template is used, or the requested one; a template is never guessed. Templates of model files are rendered in a separate
process (`runtimes.llm.template_sandbox`).
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.llm.builtin_templates import NAMED
from edge.workers.process import Worker
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import InputError, UsageError, WorkerError, WorkerTimeoutError
from runtimes.llm.session import LlmFacts, PromptPart, TextSession
from runtimes.llm.template_sandbox import MAX_TEMPLATE_CHARACTERS, RENDER_S, RenderJob, render

Message = Mapping[str, JsonValue]
PICTURE_TOKEN = -1  # represents each token of a picture in a prompt

_MAX_CACHED = 1024  # messages
_ROLE = re.compile(r"[a-z][a-z_]{0,31}")
# Two Unicode noncharacters, which never get a meaning: they delimit the placeholder of an inserted text.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_SPLICED = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_HINT = "choose another template with --template"


@dataclass(frozen=True)
class Picture:
    """A picture of a conversation: `content` is a PNG that takes `tokens` of the context."""

    content: bytes
    tokens: int


class ChatTemplate:
    """A chat template, ready to render. A context manager; thread-safe.

    source: The Jinja source.
    name: A name of NAMED, a file name, or "the model's own".
    stops: Texts that end an answer, in addition to the model's end tokens.
    folds_system: The template rejects system messages; their text is put before the first question instead.
    pictures: The pictures that messages refer to, by their names.
    """

    def __init__(self, source: str, name: str, facts: LlmFacts) -> None:
        self.source = source
        self.name = name
        self.stops: tuple[str, ...] = ()
        self.folds_system = False
        self.pictures: dict[str, Picture] = {}
        self._is_builtin = False
        self._marks = {"bos_token": facts.bos_text, "eos_token": facts.eos_text}
        self._worker = Worker("runtimes.llm.template_sandbox")
        self._lock = threading.Lock()
        self._marked: dict[str, bool] = {}

    @classmethod
    def named(cls, name: str, facts: LlmFacts) -> ChatTemplate:
        """Return a template of NAMED, which is trusted and rendered in this process.

        Raises UsageError for an unknown name.
        """
        if name not in NAMED:
            matches = difflib.get_close_matches(name, NAMED, 1)
            hint = f"did you mean {matches[0]}?" if matches else f"there are: {', '.join(NAMED)}"
            raise UsageError(f"'{name}' is neither a template nor a file", hint)
        template = cls(NAMED[name].text, name, facts)
        template.stops, template._is_builtin = NAMED[name].stops, True
        return template

    @property
    def is_plain(self) -> bool:
        """Whether the template only joins the texts, for a model that was not trained to chat."""
        return self.name == "plain"

    def render(self, messages: Sequence[Message], *, answer: bool = True, **more: Any) -> str:
        """Render a conversation as text; with `answer` it ends with the text that makes the model answer.

        `more` are values for templates that use them (`tools`, `enable_thinking`). Raises InputError if the template
        is broken, rejects this conversation, or exceeds the limits of time or memory.
        """
        _check_roles(messages)
        if self.folds_system:
            messages = _fold(messages)
        try:
            return self._render(messages, answer, more)
        except InputError:
            if self.folds_system or not any(message["role"] == "system" for message in messages):
                raise
            text = self._or_none(_fold(messages), answer, more)
            if text is None:
                raise
            self.folds_system = True
            return text

    def tokens(self, session: TextSession, messages: Sequence[Message], **more: Any) -> list[int]:
        """Render and tokenize a conversation, with BOS exactly once if the model requires it.

        The content of messages is never parsed as special tokens: a text that contains some is inserted as plain text,
        without the surrounding whitespace.
        """
        safe, spliced = self._without_marks(session, messages)
        return self.tokenized(session, self.render(safe, **more), spliced)

    def parts(self, session: TextSession, messages: Sequence[Message], **more: Any) -> list[PromptPart]:
        """Render a conversation that has pictures, for `TextSession.generate_parts`."""
        safe, spliced = self._without_marks(session, messages)
        found: list[PromptPart] = []
        for index, part in enumerate(_SPLICED.split(self.render(safe, **more))):
            inserted = spliced[int(part)] if index % 2 else part
            if isinstance(inserted, Picture):
                found.append(PromptPart(picture=inserted.content))
            elif inserted:
                found.append(PromptPart(inserted, is_special=index % 2 == 0))
        return found

    def tokenized(self, session: TextSession, text: str, spliced: Sequence[str | Picture] = ()) -> list[int]:
        """Tokenize a rendered text, with `spliced` inserted at its placeholders, texts as plain text."""
        tokens: list[int] = []
        for index, part in enumerate(_SPLICED.split(text)):
            inserted = spliced[int(part)] if index % 2 else None
            if isinstance(inserted, Picture):
                tokens += [PICTURE_TOKEN] * inserted.tokens
            elif inserted is not None:
                tokens += session.tokenize(inserted, special=False)
            elif part or index == 0:
                begin = index == 0 and not self._begins(text)
                tokens += session.tokenize(part, special=True, begin=begin)
        return tokens

    def close(self) -> None:
        """End the rendering process."""
        with self._lock:
            self._worker.close()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begins(self, text: str) -> bool:
        mark = self._marks["bos_token"]
        return bool(mark) and text.startswith(mark)

    def _or_none(self, messages: Sequence[Message], answer: bool, more: Mapping[str, JsonValue]) -> str | None:
        try:
            return self._render(messages, answer, more)
        except InputError:
            return None

    def _without_marks(
        self, session: TextSession, messages: Sequence[Message]
    ) -> tuple[list[Message], list[str | Picture]]:
        """Replace pictures, and each content with special tokens, by placeholders; return the messages and those."""
        safe: list[Message] = []
        spliced: list[str | Picture] = []
        for message in messages:
            content = message.get("content")
            if isinstance(content, str):
                content = content.replace(_OPEN, "").replace(_CLOSE, "")
                if self._has_marks(session, content):
                    spliced.append(content.strip())
                    content = f"{_OPEN}{len(spliced) - 1}{_CLOSE}"
                for name in _names(message.get("pictures")):
                    spliced.append(self.pictures[name])
                    content = f"{_OPEN}{len(spliced) - 1}{_CLOSE}{content}"
                message = {**{key: value for key, value in message.items() if key != "pictures"}, "content": content}
            safe.append(message)
        return safe, spliced

    def _has_marks(self, session: TextSession, content: str) -> bool:
        # Cached, because every turn and every attempt to fit the context asks about the whole conversation.
        has_marks = self._marked.get(content)
        if has_marks is None:
            has_marks = session.tokenize(content, special=True) != session.tokenize(content, special=False)
            if len(self._marked) >= _MAX_CACHED:
                self._marked.clear()
            self._marked[content] = has_marks
        return has_marks

    def _render(self, messages: Sequence[Message], answer: bool, more: Mapping[str, JsonValue]) -> str:
        values = {**self._marks, "messages": list(messages), "add_generation_prompt": answer, **more}
        if self._is_builtin:
            return render(self.source, values)
        try:
            with self._lock:
                return self._worker.run(RenderJob(self.source, values), timeout_s=RENDER_S).text
        except WorkerTimeoutError:
            raise InputError(f"the chat template ({self.name}) did not finish within {RENDER_S:g} s", _HINT) from None
        except WorkerError as error:
            raise InputError(f"the chat template ({self.name}) fails: {error.message}", _HINT) from None


def choose_template(facts: LlmFacts, asked: str | None = None) -> ChatTemplate:
    """Return the requested template (a name of NAMED, or a Jinja file), else the model's own.

    Raises UsageError if `asked` is neither a name nor a file, or if it is None and the model has no template.
    """
    if asked is not None:
        path = Path(asked)
        is_file = asked not in NAMED and path.is_file()
        return ChatTemplate(_read(path), path.name, facts) if is_file else ChatTemplate.named(asked, facts)
    if facts.template:
        return ChatTemplate(facts.template, "the model's own", facts)
    raise UsageError(
        f"{facts.name} has no chat template in its file",
        f"name one with --template: plain (it continues your text, for base models), {', '.join(_chats())}, "
        "or a Jinja file",
    )


def _chats() -> list[str]:
    return [name for name in NAMED if name != "plain"]


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(MAX_TEMPLATE_CHARACTERS + 1)  # the sandbox rejects longer ones
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a template: {error}", "give a Jinja file in UTF-8") from None


def _names(pictures: JsonValue) -> list[str]:
    """Return the names of a message's pictures, the last one first."""
    return [str(name) for name in reversed(pictures)] if isinstance(pictures, list) else []


def _check_roles(messages: Sequence[Message]) -> None:
    # Templates write the role between their special tokens, so it must not contain any.
    for message in messages:
        if not _ROLE.fullmatch(str(message.get("role"))):
            raise InputError(f"{message.get('role')!r} is not a role", "use system, user or assistant")


def _fold(messages: Sequence[Message]) -> list[Message]:
    """Move the text of the system messages in front of the first question."""
    system = "\n\n".join(str(message["content"]) for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    for index, message in enumerate(rest):
        if message["role"] == "user":
            rest[index] = {**message, "content": f"{system}\n\n{message['content']}"}
            break
    return rest


class StopTexts:
    """Cuts a stream before the first stop text. Holds back text that may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit: str | None = None  # the stop text that was found

    def feed(self, text: str) -> str:
        """Add a piece and return the text that can be shown now; nothing after a hit."""
        if self.hit is not None:
            return ""
        text = self._held + text
        first = min(((text.find(stop), stop) for stop in self._stops if stop in text), default=None)
        if first is not None:
            self.hit, self._held = first[1], ""
            return text[: first[0]]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Return the text that is still held back at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return the length of the longest suffix of `text` that is a prefix of a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stops)), 0)
