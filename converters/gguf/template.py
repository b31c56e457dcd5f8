"""Does a chat template render? Tried in a sandbox before it is carried into a GGUF, with a chat of two turns."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from converters.quiet import useful_line
from converters.steps import check_library
from runtimes.errors import InputError

_LONGEST_S = 5  # a template that takes longer is an endless one
_LARGEST = 2**20  # characters of a rendered chat of a few words
_QUESTION, _ANSWER = "What is the capital of France?", "Paris."
_DROP = "drop it with --no-template, and choose one when chatting (edge chat --template)"


def check_template(template: str, where: str, bos: str, eos: str) -> None:
    """InputError where the template fails, never ends, or leaves out what was said.

    Rendered as transformers does: trim_blocks, lstrip_blocks, loop controls, `raise_exception`, `strftime_now`.
    """
    check_library("jinja2", where)
    turns = [("user", _QUESTION), ("assistant", _ANSWER), ("user", _QUESTION[::-1])]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        with _limited():
            text = (
                _environment()
                .from_string(template)
                .render(
                    messages=messages,
                    add_generation_prompt=True,
                    bos_token=bos,
                    eos_token=eos,
                    tools=None,
                    documents=None,
                )
            )
    except Exception as error:  # a template can raise whatever it likes
        raise InputError(f"the chat template of {where} fails: {useful_line(error)}", _DROP) from None
    if len(text) > _LARGEST or _QUESTION not in text or _QUESTION[::-1] not in text:
        raise InputError(f"the chat template of {where} does not render a plain chat of two questions", _DROP)


def _environment() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    # A template asks for today's date; what it gets must not change what is checked.
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda _form: "1 January 2026"}
    return environment


@contextmanager
def _limited() -> Iterator[None]:
    """End the block after `_LONGEST_S`; conversions run in the main thread of a process of their own."""
    if not hasattr(signal, "setitimer"):  # Windows: the process ends with its own limit
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
