"""Render untrusted chat templates: `python -m runtimes.llm.template_sandbox`, one job per line.

Jinja's own sandbox hides Python's internals from a template, but allows `{{ 'a' * 10**10 }}` and nested loops. So a
template is rendered in a process that the parent kills after a time limit, and whose memory is limited to `_MAX_BYTES`
(with POSIX's `setrlimit`, which only Linux enforces). The environment is that of Hugging Face transformers
(`utils/chat_template_utils.py`, 5.23).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Mapping, NoReturn

from runtimes import child_process
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.errors import EngineMissingError, InputError, WorkerCrashedError, first_line, from_dict
from runtimes.jobs import Job

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARACTERS = 1 << 18  # the longest known template, which supports tools, has about 2**15
RENDER_S = 10.0  # for one rendering: the process starts within one second, even on a Raspberry Pi
_MAX_TEXT_CHARACTERS = 1 << 25
_MAX_BYTES = 1 << 30  # address space, of which Python itself needs about 200 MB
_HINT = "choose another template with --template"


@dataclass(frozen=True)
class RenderedPrompt:
    """The text that a template rendered."""

    text: str


@dataclass(frozen=True)
class RenderJob(Job[RenderedPrompt]):
    """Render `template` with `values`; `now` is its current time, None uses the clock."""

    name = "render"
    template: str
    values: Mapping[str, JsonValue]
    now: datetime | None = None

    def to_json(self) -> JsonObject:
        """Return the JSON object of the job."""
        now = {"now": self.now.isoformat()} if self.now else {}
        return {"job": self.name, "template": self.template, "values": self.values, **now}

    @classmethod
    def from_json(cls, fields: Fields) -> RenderJob:
        """Parse the job."""
        now = datetime.fromisoformat(fields.text("now")) if fields.has("now") else None
        return cls(fields.text("template"), fields.mapping("values"), now)

    @staticmethod
    def answer_from_json(fields: Fields) -> RenderedPrompt:
        """Parse the answer."""
        return RenderedPrompt(fields.text("text"))


@dataclass(frozen=True)
class Trial:
    """The result of testing a template; both are empty if it rendered.

    harm: Which limit of size or memory it exceeds.
    refusal: Why it failed or rejected the conversation.
    """

    harm: str
    refusal: str


@dataclass(frozen=True)
class TrialJob(Job[Trial]):
    """Test `template` with `values`; the text is discarded."""

    name = "measure"
    template: str
    values: Mapping[str, JsonValue]

    @classmethod
    def from_json(cls, fields: Fields) -> TrialJob:
        """Parse the job."""
        return cls(fields.text("template"), fields.mapping("values"))

    @staticmethod
    def answer_from_json(fields: Fields) -> Trial:
        """Parse the answer."""
        return Trial(fields.text("harm"), fields.text("refusal"))


def render(source: str, values: Mapping[str, Any], now: datetime | None = None) -> str:
    """Render a template with `values`. Raises InputError if it is broken, exceeds a limit or rejects the conversation.

    `now` is its current time; None uses the clock. A template that fails on texts, or drops them, gets typed parts
    instead: those of models that see pictures (LLaVA, Idefics) read nothing else.
    """
    plain = values.get("messages")
    question = _last_question(plain)
    typed = {**values, "messages": _with_typed_parts(plain)} if question else values
    try:
        text = _render(source, values, now)
    except InputError:
        if not question:
            raise
        with suppress(InputError):
            return _render(source, typed, now)
        raise
    if question in text:
        return text
    with suppress(InputError):
        other = _render(source, typed, now)
        if question in other:
            return other
    return text


def _last_question(messages: Any) -> str:
    """Return the text of the last user's message; empty if there is none."""
    questions = [one.get("content") for one in messages or () if one.get("role") == "user"]
    return questions[-1].strip() if questions and isinstance(questions[-1], str) else ""


def _with_typed_parts(messages: Any) -> Any:
    return [
        {**one, "content": [{"type": "text", "text": one["content"]}]} if isinstance(one.get("content"), str) else one
        for one in messages
    ]


def _render(source: str, values: Mapping[str, JsonValue], now: datetime | None) -> str:
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        limit = f"the limit is {MAX_TEMPLATE_CHARACTERS}"
        raise InputError(f"the chat template has {len(source)} characters; {limit}", _HINT)
    try:
        text: str = _environment(now).from_string(source).render(**values)
    except MemoryError:
        raise InputError(
            f"the chat template needs more memory than the limit of {_MAX_BYTES >> 20} MiB", _HINT
        ) from None
    except EngineMissingError:
        raise
    except Exception as error:  # a template can raise any exception
        raise InputError(f"the chat template fails: {first_line(error)}", _HINT) from None
    if len(text) > _MAX_TEXT_CHARACTERS:
        limit = f"the limit is {_MAX_TEXT_CHARACTERS}"
        raise InputError(f"the chat template renders this chat as {len(text)} characters; {limit}", _HINT)
    return text


def render_once(source: str, values: Mapping[str, Any], now: datetime) -> str:
    """Render like `render`, in a separate process that is killed after `RENDER_S`."""
    job = RenderJob(source, values, now).to_json()
    with tempfile.TemporaryFile() as log:
        child = child_process.start_text([sys.executable, "-P", "-m", "runtimes.llm.template_sandbox"], log)
        try:
            out, _ = child.communicate(json.dumps(job) + "\n", timeout=RENDER_S)
        except subprocess.TimeoutExpired:
            raise InputError(f"the chat template takes longer than {RENDER_S:g} s", _HINT) from None
        finally:
            child_process.end(child)
            child.communicate()
        if not out:
            words = child_process.last_words(log)
            raise WorkerCrashedError(f"the process that renders chat templates ended with {child.returncode}", words)
    answer = json.loads(out)
    if "error" in answer:
        raise from_dict(answer)
    return str(answer["text"])


def measure(source: str, values: Mapping[str, Any]) -> Trial:
    """Test a template with `values`, before another program renders it."""
    try:
        render(source, values)
    except InputError as error:
        is_harm = any(word in error.message for word in ("more memory", "characters; the limit"))
        return Trial(error.message if is_harm else "", error.message)
    return Trial("", "")


def _environment(now: datetime | None) -> ImmutableSandboxedEnvironment:
    try:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise EngineMissingError("jinja2 is not installed", "pip install 'edgeproof[chat]'") from None

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = (now or datetime.now()).strftime
    return environment


def _generation_tag() -> Any:
    """Return a Jinja extension that renders `{% generation %} … {% endgeneration %}` as its body."""
    from jinja2.ext import Extension

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja's own interface

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    return GenerationTag


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which models were not trained with.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows; only the time is limited there
        return
    if sys.platform == "linux":  # macOS rejects the limit
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))


def main() -> None:
    """Serve `RenderJob` and `TrialJob` until stdin ends."""
    from runtimes.job_server import handler, serve

    _bound_memory()
    serve(
        {
            "render": handler(
                RenderJob, lambda job, _report: RenderedPrompt(render(job.template, job.values, job.now))
            ),
            "measure": handler(TrialJob, lambda job, _report: measure(job.template, job.values)),
        }
    )


if __name__ == "__main__":
    main()
