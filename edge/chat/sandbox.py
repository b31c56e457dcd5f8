"""Renders a chat template that nobody vouches for: `python -m edge.chat.sandbox`, one job a line.

Jinja's own sandbox keeps a template from Python's insides, but `{{ 'a' * 10**10 }}` or nested loops are legal in it.
So it renders in a process that the parent ends after its time, and that may not grow beyond `_MOST_BYTES`.
The environment is the one that Hugging Face transformers gives a template (`utils/chat_template_utils.py`, 5.23).
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from runtimes.errors import EngineMissing, InputError, first_line

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_TEMPLATE_CHARACTERS = 1 << 18  # the longest we know of, with tools and all, has some 2**15
_MOST_TEXT_CHARACTERS = 1 << 25
_MOST_BYTES = 1 << 30  # address space, of which Python itself takes some 200 MB
_HINT = "choose another template with --template"


def render(source: str, values: dict[str, Any]) -> str:
    """The text that a template makes of `values`; InputError for what is wrong with it, or what it says is wrong."""
    if len(source) > MOST_TEMPLATE_CHARACTERS:
        raise InputError(f"the chat template has {len(source)} characters, more than any real one", _HINT)
    try:
        text = _environment().from_string(source).render(**values)
    except MemoryError:
        raise InputError("the chat template asks for more memory than any real one", _HINT) from None
    except Exception as error:  # a template can raise whatever Python can
        raise InputError(f"the chat template fails: {first_line(error)}", _HINT) from None
    if len(text) > _MOST_TEXT_CHARACTERS:
        raise InputError(f"the chat template makes {len(text)} characters of this chat", _HINT)
    return text


def _environment() -> ImmutableSandboxedEnvironment:
    try:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise EngineMissing("jinja2 is not installed", "pip install 'edgeproof[chat]'") from None
    from edge.chat.generation_tag import generation_tag

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, generation_tag()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML, which no model was trained with.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows; the time is bounded there too
        return
    if sys.platform == "linux":  # macOS refuses the limit
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))


def main() -> None:
    """Serve "render" jobs ({"template", "values"} → {"text"}) until stdin ends."""
    from runtimes.worker import serve

    _bound_memory()
    serve({"render": lambda job, _report: {"text": render(job["template"], job["values"])}})


if __name__ == "__main__":
    main()
