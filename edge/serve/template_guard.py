"""Choose the chat template for llama-server, and test it in a sandbox, with each request too.

The template in a model file is an untrusted program. llama-server renders it inside its own process, where an endless
loop would block a thread forever. So it is tested with a few conversations before llama-server starts, and with each
request's conversation before that is forwarded. The built-in templates need no test.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge.llm.builtin_templates import NAMED
from edge.serve.errors import ApiError
from edge.serve.pictures import ends_with_picture
from edge.workers.process import Worker
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import EdgeError, InputError, UsageError, WorkerError, WorkerTimeoutError
from runtimes.llm.template_sandbox import MAX_TEMPLATE_CHARACTERS, RENDER_S, RenderJob, TrialJob
from runtimes.model_files.gguf import GgufFile, control_texts

_HINT = "choose another template with --template"
_NO_TEMPLATE = "the chat format that it was trained with, if any, is not in its file"
# Tested before llama-server gets a template: the first must render, the others must stay within the limits.
_QUESTION: JsonObject = {"role": "user", "content": "Hello"}
_ANSWER: JsonObject = {"role": "assistant", "content": "Hello, how can I help?"}
_TRIALS: tuple[list[JsonObject], ...] = (
    [_QUESTION],
    [{"role": "system", "content": "Be short."}, _QUESTION, _ANSWER, _QUESTION],
    [_QUESTION, _ANSWER] * 50 + [_QUESTION],
)
_PICTURE = "<a picture>"
# Replaces a template that llama-server must not get; it is never rendered.
SAFE = "{% for message in messages %}{{ message.content }}{% endfor %}"


class TemplateGuard:
    """The chat template of a served model.

    source: The template to pass to llama-server; None uses the model's own.
    stops: Texts that end a response, in addition to the model's end tokens.
    problem: Why there is no usable template; empty if there is one.
    marks: A pattern of the model's control tokens; None if it has none.
    """

    def __init__(self, source: str | None, *, stops: tuple[str, ...] = (), problem: str = "") -> None:
        self.source = source
        self.stops = stops
        self.problem = problem
        self.marks: re.Pattern[str] | None = None
        self._known = source  # what will be rendered, as far as it is known here
        self._watched: str | None = None
        self._worker = Worker("runtimes.llm.template_sandbox")
        self._lock = threading.Lock()

    @property
    def is_watched(self) -> bool:
        """Whether `check` renders the template, which takes a moment."""
        return self._watched is not None

    def check(self, conversation: Sequence[JsonObject], tools: Sequence[JsonValue]) -> None:
        """Raise ApiError 400 if there is no template, or if rendering this request exceeds the limits."""
        if self.problem:
            raise ApiError(400, self.problem, param="messages", code="no_chat_template")
        if self._watched is not None:
            harm = self._measure(self._watched, conversation, tools)[0]
            if harm:
                raise ApiError(400, f"{harm}; {_HINT}", param="messages", code="harmful_template")

    def check_picture_at_end(self, conversation: Sequence[JsonObject]) -> None:
        """Raise ApiError 400 if this conversation, which ends with a picture, is rendered without any text after it."""
        if self._known is None:
            return
        values = _values([*conversation[:-1], {**conversation[-1], "content": _PICTURE}])
        try:
            with self._lock:
                text = self._worker.run(RenderJob(self._known, values), timeout_s=RENDER_S).text
        except EdgeError:
            return  # llama-server reports why it cannot be rendered
        if text.endswith(_PICTURE):
            raise ends_with_picture("messages")

    def watch(self, source: str) -> None:
        """Test the untrusted template `source`, and let `check` test it with each request; may set `problem`."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            limit = f"the limit is {MAX_TEMPLATE_CHARACTERS}"
            self.problem = f"the chat template has {len(source)} characters, {limit}; {_HINT}"
            return
        for index, messages in enumerate(_TRIALS):
            harm, error = self._measure(source, messages, ())
            if harm or (error and index == 0):
                self.problem = f"{harm or error}; {_HINT}"
                return
        self._known = self._watched = source

    def close(self) -> None:
        """End the rendering process."""
        with self._lock:
            self._worker.close()

    def _measure(self, source: str, messages: Sequence[JsonObject], tools: Sequence[JsonValue]) -> tuple[str, str]:
        values = _values(messages, tools)
        try:
            with self._lock:
                trial = self._worker.run(TrialJob(source, values), timeout_s=RENDER_S)
        except WorkerTimeoutError:
            return f"the chat template takes longer than {RENDER_S:g} s", ""
        except WorkerError as error:
            return f"the chat template fails: {error.message}", ""
        return trial.harm, trial.refusal


def _values(messages: Sequence[JsonObject], tools: Sequence[JsonValue] = ()) -> JsonObject:
    """Return what llama-server passes to a template, also the text and the time for those of FireFunction."""
    return {
        "messages": list(messages),
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        **({"tools": list(tools)} if tools else {}),
        "functions": json.dumps(tools, indent=2) if tools else "",
        "datetime": datetime.now(UTC).strftime("%b %d %Y %H:%M:%S GMT"),
    }


def guard_template(file: GgufFile, path: Path, asked: str | None, passed_on: str | None = None) -> TemplateGuard:
    """Return the requested template (a name of NAMED, or a Jinja file), else the model's own.

    `passed_on` is the value of llama-server's own --chat-template: the name of one of its templates, or Jinja.
    Raises UsageError for an unknown name. For a broken or harmful template, `problem` is set,
    and chats are rejected.
    """
    guard = _choose(file, path, asked) if passed_on is None else _pass_on(passed_on)
    if guard.problem:
        guard.source = SAFE
    guard.marks = control_texts(path)
    return guard


def _choose(file: GgufFile, path: Path, asked: str | None) -> TemplateGuard:
    if asked in NAMED:
        return TemplateGuard(NAMED[asked].text, stops=NAMED[asked].stops)
    own = file.text("tokenizer.chat_template")
    if asked is None and own is None:
        name = file.text("general.name") or path.stem
        return TemplateGuard(None, problem=f"{name} has no chat template: {_NO_TEMPLATE}; {_names()}")
    source = own if asked is None else _read(asked)
    assert source is not None
    guard = TemplateGuard(None if asked is None else source)
    guard.watch(source)
    return guard


def _pass_on(template: str) -> TemplateGuard:
    guard = TemplateGuard(None)
    if "{" in template:
        guard.watch(template)
        if guard.problem:
            raise UsageError(f"--chat-template: {guard.problem}", _HINT)
    return guard


def _names() -> str:
    chats = ", ".join(name for name in NAMED if name != "plain")
    return f"choose one with --template: plain (it continues your text, for base models), {chats}, or a Jinja file"


def _read(asked: str) -> str:
    from difflib import get_close_matches

    if not Path(asked).is_file():
        near = get_close_matches(asked, NAMED, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(NAMED)}"
        raise UsageError(f"'{asked}' is neither a template nor a file", hint)
    try:
        with Path(asked).open(encoding="utf-8") as stream:
            return stream.read(MAX_TEMPLATE_CHARACTERS + 1)  # `watch` rejects a longer one
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{asked} cannot be read as a template: {error}", "choose a Jinja text file") from None
