"""Check in the sandbox that a chat template renders a chat of two turns, before it is written into a GGUF."""

from __future__ import annotations

from datetime import datetime

from converters.base import Requirement
from runtimes.errors import InputError
from runtimes.llm.template_sandbox import render_once

_LARGEST = 2**20  # characters of a rendered chat of a few words
_NOW = datetime(2026, 1, 1)  # templates use the current date; a fixed one makes the check reproducible
_QUESTION, _ANSWER = "What is the capital of France?", "Paris."
_DROP = "drop it with --no-template, and choose one when chatting (edge chat --template)"


def render_chat(template: str, where: str, bos: str, eos: str) -> str:
    """Render a chat of two questions. Raises InputError if the template fails, never ends, or omits a question."""
    Requirement("jinja2", "gguf").check(where)
    turns = [("user", _QUESTION), ("assistant", _ANSWER), ("user", _QUESTION[::-1])]
    values = {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "add_generation_prompt": True,
        "bos_token": bos,
        "eos_token": eos,
        "tools": None,
        "documents": None,
    }
    try:
        text = render_once(template, values, _NOW)
    except InputError as error:
        message = error.message.replace("the chat template", f"the chat template of {where}", 1)
        raise InputError(message, _DROP) from None
    if len(text) > _LARGEST or _QUESTION not in text or _QUESTION[::-1] not in text:
        raise InputError(f"the chat template of {where} does not render a plain chat of two questions", _DROP)
    return text
