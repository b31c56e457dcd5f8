"""Request bodies of `/v1/chat/completions` and `/v1/completions`, read and checked.

What would change the answer and is not done here (tools, several choices, log probabilities, pictures) is refused, and
so is a word that nobody knows: a client is never left to believe that it counted. What only concerns OpenAI's own
billing and storage (`user`, `store`, `metadata`, ...) is ignored, as OpenAI's servers ignore it for the answer.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.serve.problems import Problem
from runtimes.errors import UsageError
from runtimes.text import TextOptions

_MOST_STOPS = 16  # OpenAI takes 4
_MOST_MESSAGES = 10_000
_COMPLETION_TOKENS = 16  # OpenAI's own default for /v1/completions

# Field → the option of the engine. The last three are no part of OpenAI's interface; llama.cpp's server has them too.
_NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "min_p", "repeat_penalty")
_READ = {
    *_NUMBERS, "model", "stream", "stream_options", "stop", "seed", "n", "max_tokens", "top_k", "grammar",
    "response_format",
}  # fmt: skip
_IGNORED = {
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
}  # fmt: skip
# What cannot be done, and the values with which it asks for nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
_CHAT = {"messages", "max_completion_tokens"}
_TEXT = {"prompt"}


@dataclass(frozen=True)
class Ask:
    """What a client wants: exactly one of `messages` and `prompt` (text, or token ids) is there."""

    model: str | None
    options: TextOptions
    stops: tuple[str, ...]
    streams: bool
    wants_usage: bool
    messages: list[dict[str, str]] | None = None
    prompt: str | list[int] | None = None


def chat_ask(body: Any) -> Ask:
    """The body of a chat completion; Problem (400) names the field that is wrong."""
    fields = _Fields(body, _READ | _CHAT)
    limit = fields.whole("max_completion_tokens", least=1)
    if limit is None:
        limit = fields.whole("max_tokens", least=1)
    return _ask(fields, limit, messages=_messages(fields))


def text_ask(body: Any) -> Ask:
    """The body of a completion; Problem (400) names the field that is wrong."""
    fields = _Fields(body, _READ | _TEXT)
    limit = fields.whole("max_tokens", least=0)
    return _ask(fields, _COMPLETION_TOKENS if limit is None else limit, prompt=_prompt(fields))


class _Fields:
    """A JSON object whose typed getters give None where a field is absent or null."""

    def __init__(self, body: Any, known: set[str]) -> None:
        if not isinstance(body, dict):
            raise Problem(400, "the body is not a JSON object")
        self._body = body
        for name, value in body.items():
            if name not in known | _IGNORED and value is not None:
                _refuse(name, value, known)

    def get(self, name: str, kind: type | tuple[type, ...], words: str) -> Any:
        value = self._body.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Problem(400, f"'{name}' is not {words}", param=name, code="invalid_type")
        return value

    def number(self, name: str) -> float | None:
        value = self.get(name, (int, float), "a number")
        return None if value is None else float(value)

    def whole(self, name: str, least: int | None = None) -> int | None:
        value: int | None = self.get(name, int, "a whole number")
        if value is not None and least is not None and value < least:
            raise Problem(400, f"'{name}' is {value}: choose {least} or more", param=name, code="invalid_value")
        return value

    def flag(self, name: str) -> bool:
        return bool(self.get(name, bool, "true or false"))

    def text(self, name: str) -> str | None:
        value: str | None = self.get(name, str, "text")
        return value


def _refuse(name: str, value: Any, known: set[str]) -> None:
    if name not in _REFUSED:
        near = difflib.get_close_matches(name, known, 1)
        hint = f": did you mean '{near[0]}'?" if near else ""
        raise Problem(400, f"'{name}' is not known here{hint}", param=name, code="unknown_parameter")
    if value not in _REFUSED[name]:
        raise Problem(400, f"'{name}' is not supported here: leave it out", param=name, code="unsupported_parameter")


def _ask(
    fields: _Fields,
    limit: int | None,
    *,
    messages: list[dict[str, str]] | None = None,
    prompt: str | list[int] | None = None,
) -> Ask:
    if fields.whole("n", least=1) not in (None, 1):
        raise Problem(400, "'n' is more than 1: ask several times instead", param="n", code="unsupported_value")
    stream = fields.get("stream_options", dict, "an object") or {}
    return Ask(
        model=fields.text("model"),
        options=_options(fields, limit),
        stops=_stops(fields),
        streams=fields.flag("stream"),
        wants_usage=stream.get("include_usage") is True,
        messages=messages,
        prompt=prompt,
    )


def _options(fields: _Fields, limit: int | None) -> TextOptions:
    given: dict[str, Any] = {name: fields.number(name) for name in _NUMBERS}
    given |= {"max_tokens": limit, "top_k": fields.whole("top_k"), "grammar": fields.text("grammar")}
    seed = fields.whole("seed")
    # OpenAI takes any 64-bit number, the engines 32 bits.
    given["seed"] = None if seed is None else seed % 2**32
    given["json_schema"] = _schema(fields)
    try:
        return TextOptions(**{name: value for name, value in given.items() if value is not None})
    except UsageError as error:
        raise Problem(400, f"{error.message}: {error.hint}", param=error.message.split()[0]) from None


def _schema(fields: _Fields) -> str | None:
    """The JSON schema that `response_format` asks for, as text."""
    form = fields.get("response_format", dict, "an object")
    kind = None if form is None else form.get("type")
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    wanted = form.get("json_schema")
    if kind != "json_schema" or not isinstance(wanted, dict) or not isinstance(wanted.get("schema"), dict):
        message = "'response_format' is text, json_object, or json_schema with a schema in json_schema.schema"
        raise Problem(400, message, param="response_format", code="invalid_value")
    return json.dumps(wanted["schema"])


def _stops(fields: _Fields) -> tuple[str, ...]:
    value = fields.get("stop", (str, list), "text or a list of texts")
    stops = [value] if isinstance(value, str) else value or []
    if not all(isinstance(stop, str) and stop for stop in stops) or len(stops) > _MOST_STOPS:
        raise Problem(400, f"'stop' is not up to {_MOST_STOPS} texts", param="stop", code="invalid_value")
    return tuple(stops)


def _messages(fields: _Fields) -> list[dict[str, str]]:
    messages = fields.get("messages", list, "a list of messages")
    if not messages or len(messages) > _MOST_MESSAGES:
        raise Problem(400, f"'messages' holds no message, or more than {_MOST_MESSAGES}", param="messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Problem(400, f"'{place}' is not an object", param=place, code="invalid_type")
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ("system", "user", "assistant"):
        raise Problem(400, f"'{place}.role' is not system, user or assistant", param=f"{place}.role")
    if message.get("tool_calls") or message.get("function_call"):
        raise Problem(400, f"'{place}' calls tools, which are not supported here", param=place)
    return {"role": role, "content": _content(message.get("content"), f"{place}.content")}


def _content(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Problem(400, f"'{place}' is not text", param=place, code="invalid_type")
    return "".join(_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Problem(400, f"'{place}' is not text: this model reads nothing else", param=place, code="unsupported_value")


def _prompt(fields: _Fields) -> str | list[int]:
    prompt = fields.get("prompt", (str, list), "text, or a list of token ids")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    is_token: Callable[[Any], bool] = lambda item: isinstance(item, int) and not isinstance(item, bool)  # noqa: E731
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and all(map(is_token, prompt))):
        return prompt
    raise Problem(400, "'prompt' is not one text, or one list of token ids", param="prompt", code="invalid_value")
