"""Check request bodies before they are sent to llama-server, and adapt them where clients need it.

In some fields llama-server ignores a value of the wrong type, so a client would believe that it has an effect; such
values are rejected, naming the field. Unknown fields are passed on, because OpenAI's own servers ignore them. Features
that llama-server does not have (functions, audio, search) are rejected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.serve.errors import ApiError
from edge.serve.pictures import check_links, is_picture
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import InputError
from runtimes.llm.grammar.json_schema import grammar_of

_MAX_MESSAGES = 10_000
_MAX_STOPS = 64
_MAX_GRAMMAR_BYTES = 256 << 10  # llama.cpp's parser recurses over it
_COMPLETION_TOKENS = 16  # OpenAI's own default for /v1/completions

CHAT = ("/v1/chat/completions", "/chat/completions")
TEXT = ("/v1/completions",)
RESPONSES = ("/v1/responses", "/responses")
MESSAGES = ("/v1/messages",)
RENDERING = (
    *CHAT, "/v1/chat/completions/input_tokens", "/chat/completions/input_tokens", "/v1/responses", "/responses",
    "/v1/responses/input_tokens", "/responses/input_tokens", "/v1/messages", "/v1/messages/count_tokens",
    "/apply-template",
)  # fmt: skip
"""Paths whose requests are rendered with the chat template."""
GENERATING = (
    *CHAT, *TEXT, "/completion", "/completions", "/infill", "/v1/responses", "/responses", "/v1/messages", "/embedding",
    "/embeddings", "/v1/embeddings", "/rerank", "/reranking", "/v1/rerank", "/v1/reranking",
)  # fmt: skip
"""Paths whose requests take a slot."""

_NUMBER: tuple[type, ...] = (int, float)
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(
        ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty"),
        (_NUMBER, "a number"),
    ),
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "seed", "top_k", "n_predict", "top_logprobs"),
        ((int,), "a whole number"),
    ),
    **dict.fromkeys(("stream", "parallel_tool_calls", "echo", "cache_prompt"), ((bool,), "true or false")),
    **dict.fromkeys(("tools", "messages"), ((list,), "a list")),
    **dict.fromkeys(
        ("stream_options", "response_format", "chat_template_kwargs", "json_schema"), ((dict,), "an object")
    ),
    **dict.fromkeys(("model", "grammar", "suffix", "reasoning_effort"), ((str,), "text")),
    "stop": ((str, list), "text or a list of texts"),
    "tool_choice": ((str, dict), "text or an object"),
    "logit_bias": ((dict, list), "an object"),
    "logprobs": ((bool, int), "true or false, or a number"),
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, float("inf")),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "n": (1, 128),
    "max_tokens": (-1, 2**31),
    "max_completion_tokens": (-1, 2**31),
}
# Unsupported fields, and the values that request nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
}
_DROPPED = ("echo", "best_of", "suffix", "functions", "function_call")  # llama-server rejects any value of these


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked request.

    content: The body for llama-server.
    streams: Whether the client asks for a stream.
    conversation: The messages that the template will render, as far as they are known here.
    tools: The tools that the template will render.
    ends_with_picture: Whether no text follows the last picture of the last message.
    requires_call: Whether the response has to be a call of a tool.
    """

    content: bytes
    streams: bool = False
    conversation: tuple[JsonObject, ...] = ()
    tools: tuple[JsonValue, ...] = ()
    ends_with_picture: bool = False
    requires_call: bool = False


def read_request(
    path: str, body: bytes, *, stops: tuple[str, ...] = (), marks: re.Pattern[str] | None = None
) -> Request:
    """Check the body of a POST to `path`. Raises ApiError 400, naming the field.

    stops: Stop texts to add to those of a chat request.
    marks: The control tokens of the template, which are escaped in messages.
    """
    if path not in GENERATING and path not in RENDERING:
        return Request(content=body)
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is not a JSON object")
    check_links(fields)
    changed = _use_chat_fields(fields, path)
    _check(fields, path)
    changed = _drop_unused(fields) or changed
    changed = _choose_tool(fields, path) or changed
    changed = _add_stops(fields, path, stops) or changed
    changed = _limit(fields, path) or changed
    changed = _constrain(fields, path) or changed
    if marks is not None and path in RENDERING:
        changed = _escape_marks(fields, marks) or changed
    content = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") if changed else body
    tools = tuple(fields.get("tools") or ())
    return Request(
        content=content,
        streams=fields.get("stream") is True,
        conversation=tuple(_conversation(fields)),
        tools=tools,
        ends_with_picture=_ends_with_picture(fields),
        requires_call=_requires_call(fields),
    )


def _check(fields: JsonObject, path: str) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        if name in _REFUSED and value not in _REFUSED[name]:
            _reject(f"'{name}' is not supported: leave it out", name, "unsupported_parameter")
        kinds, words = _TYPES.get(name, ((object,), ""))
        if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds)):
            _reject(f"'{name}' is not {words}", name, "invalid_type")
        least, most = _RANGES.get(name, (float("-inf"), float("inf")))
        if isinstance(value, (int, float)) and not least <= value <= most:
            _reject(f"'{name}' is {value}, not between {least:g} and {most:g}", name, "invalid_value")
    _check_stops(fields.get("stop"))
    _check_bias(fields.get("logit_bias"))
    _check_objects(fields.get("tools"), "tools")
    _check_format(fields, path)
    if path in CHAT:
        _check_messages(fields.get("messages"))
    if path in TEXT and fields.get("prompt") is None:
        _reject("'prompt' is missing", "prompt", "invalid_value")


def _reject(message: str, name: str, code: str) -> None:
    raise ApiError(400, message, param=name, code=code)


def _use_chat_fields(fields: JsonObject, path: str) -> bool:
    """Translate fields that llama-server ignores outside /v1/chat/completions into those that it knows there.

    These are the schema of /v1/responses, and switching thoughts off in /v1/messages.
    """
    if path in RESPONSES:
        form = _object(_object(fields.get("text")).get("format"))
        if form.get("type", "text") == "text":
            return False
        del fields["text"]
        inner: JsonObject = {"name": form.get("name"), "schema": form.get("schema")}
        fields["response_format"] = {"type": form.get("type"), "json_schema": inner}
        return True
    if path not in MESSAGES:
        return False
    for name, asked in (
        ("output_format", fields.get("output_format")),
        ("output_config.format", _object(fields.get("output_config")).get("format")),
    ):
        if asked is not None:
            _reject(f"'{name}' is not supported: use /v1/chat/completions", name, "unsupported_parameter")
    if _object(fields.get("thinking")).get("type") != "disabled":
        return False
    fields["chat_template_kwargs"] = {"enable_thinking": False, **_object(fields.get("chat_template_kwargs"))}
    return True


def _check_objects(items: Any, place: str) -> None:
    if items is not None and not isinstance(items, list):
        _reject(f"'{place}' is not a list", place, "invalid_type")
    for index, item in enumerate(items or []):
        if not isinstance(item, dict):
            _reject(f"'{place}[{index}]' is not an object", f"{place}[{index}]", "invalid_type")


def _check_stops(stops: Any) -> None:
    stops = [stops] if isinstance(stops, str) else stops or []
    if not all(isinstance(stop, str) and stop for stop in stops) or len(stops) > _MAX_STOPS:
        _reject(f"'stop' is not up to {_MAX_STOPS} texts", "stop", "invalid_value")


def _check_bias(bias: Any) -> None:
    """Check {token: a number, or false for never}, or a list of such pairs; llama-server ignores other values."""
    for item in bias.items() if isinstance(bias, dict) else bias or []:
        token, value = item if isinstance(item, (list, tuple)) and len(item) == 2 else (item, None)
        if value is True or not isinstance(value, (int, float)):
            _reject(f"'logit_bias' has no number for {str(token)[:100]}", "logit_bias", "invalid_type")


def _format_name(path: str) -> str:
    return "text.format" if path in RESPONSES else "response_format"


def _check_format(fields: JsonObject, path: str) -> None:
    form, field = _object(fields.get("response_format")), _format_name(path)
    kind = form.get("type", "text")
    schema = form.get("json_schema") if kind == "json_schema" else {"schema": form.get("schema") or {}}
    if kind not in ("text", "json_object", "json_schema") or not isinstance(schema, dict):
        _reject(f"'{field}' is text, json_object or json_schema", field, "invalid_value")
    elif not isinstance(schema.get("schema"), dict):
        _reject(f"'{field}' has no schema", field, "invalid_value")
    for name, value in (
        ("grammar", fields.get("grammar")),
        ("json_schema", fields.get("json_schema")),
        (str(kind), form),
    ):
        if value and len(json.dumps(value)) > _MAX_GRAMMAR_BYTES:
            _reject(f"'{name}' is longer than {_MAX_GRAMMAR_BYTES >> 10} KiB", name, "invalid_value")


def _constrain(fields: JsonObject, path: str) -> bool:
    """Check that every word of a JSON schema will be enforced; return whether the fields have changed.

    llama-server silently drops words, ignores `response_format` outside chats, and, in xllamacpp, schemas outside
    chats for SentencePiece vocabularies. So there the schema becomes a grammar. In chats llama-server translates it
    itself, because its grammar has to let the thoughts of reasoning models pass.
    """
    form = _object(fields.get("response_format"))
    name = _format_name(path) if form.get("type", "text") != "text" else "json_schema"
    schema: Any = fields.get("json_schema")
    if name != "json_schema":
        schema = form.get("schema") or _object(form.get("json_schema")).get("schema") or {"type": "object"}
    if schema is None:
        return False
    try:
        grammar = grammar_of(json.dumps(schema))
    except InputError as error:
        _reject(f"'{name}': {error.message}", name, "invalid_value")
    if path in CHAT or path in RESPONSES:
        return False
    if fields.get("grammar"):
        _reject(f"'grammar' and '{name}' cannot be combined", "grammar", "invalid_value")
    for unused in ("response_format", "json_schema"):
        fields.pop(unused, None)
    fields["grammar"] = grammar
    return True


def _check_messages(messages: Any) -> None:
    if not messages or len(messages) > _MAX_MESSAGES:
        _reject(f"'messages' is empty or has more than {_MAX_MESSAGES} messages", "messages", "invalid_value")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            _reject(f"'{place}' is not an object", place, "invalid_type")
        if not isinstance(message.get("role"), str):
            _reject(f"'{place}.role' is not text", f"{place}.role", "invalid_type")
        _check_objects(message.get("tool_calls"), f"{place}.tool_calls")
        content = message.get("content")
        if not isinstance(content, (str, list, type(None))):
            _reject(f"'{place}.content' is not text or a list of parts", f"{place}.content", "invalid_type")
        if content is None and "content" not in message and message["role"] != "assistant":
            _reject(f"'{place}' has no content", f"{place}.content", "invalid_value")
        for part, name in _parts(content, f"{place}.content"):
            _check_part(part, name)


def _parts(content: Any, place: str) -> Iterator[tuple[Any, str]]:
    if isinstance(content, list):
        yield from ((part, f"{place}[{index}]") for index, part in enumerate(content))


def _check_part(part: Any, place: str) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        _reject(f"'{place}' is not an object with a type", place, "invalid_type")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        _reject(f"'{place}.text' is not text", f"{place}.text", "invalid_type")


def _drop_unused(fields: JsonObject) -> bool:
    names = [name for name in _DROPPED if name in fields]
    for name in names:
        del fields[name]
    return bool(names)


def _choose_tool(fields: JsonObject, path: str) -> bool:
    """Replace a named tool by "any tool" and a list of this one: llama-server does not support named tools."""
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    if not isinstance(choice, dict) or choice.get("type") not in ("function", "tool") or not tools:
        return False
    inner = choice.get("function")
    name = inner.get("name") if isinstance(inner, dict) else choice.get("name")
    chosen = [tool for tool in _items(tools) if isinstance(tool, dict) and _tool_name(tool) == name]
    if not chosen:
        message = f"'tool_choice' names {str(name)[:100]!r}, which is not among the tools"
        _reject(message, "tool_choice", "invalid_value")
    fields["tools"], fields["tool_choice"] = chosen, {"type": "any"} if path.startswith("/v1/messages") else "required"
    return True


def _requires_call(fields: JsonObject) -> bool:
    """Return whether a call is required. Raises ApiError 400 if one is, and there are no tools to call."""
    choice = fields.get("tool_choice")
    is_required = choice == "required" or _object(choice).get("type") in ("any", "tool", "function")
    if is_required and not fields.get("tools"):
        _reject("'tool_choice' requires a call, but there are no tools", "tool_choice", "invalid_value")
    return is_required


def _tool_name(tool: Mapping[str, JsonValue]) -> Any:
    inner = tool.get("function")
    return inner.get("name") if isinstance(inner, dict) else tool.get("name")


def _add_stops(fields: JsonObject, path: str, stops: tuple[str, ...]) -> bool:
    if not stops or path not in CHAT:
        return False
    requested = fields.get("stop") or []
    fields["stop"] = [*([requested] if isinstance(requested, str) else _items(requested)), *stops]
    return True


def _limit(fields: JsonObject, path: str) -> bool:
    names = ("max_tokens", "max_completion_tokens", "n_predict")
    if path not in TEXT or any(fields.get(name) is not None for name in names):
        return False
    fields["max_tokens"] = _COMPLETION_TOKENS
    return True


def _escape_marks(fields: JsonObject, marks: re.Pattern[str]) -> bool:
    """Escape the template's control tokens in all texts except the assistant's, so that no text can pose as it.

    A zero-width space after the first character turns a control token into plain text and does not change its look.
    """
    changed = False

    def plain(text: str) -> str:
        nonlocal changed
        escaped = marks.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)
        changed = changed or escaped != text
        return escaped

    for message in (*_items(fields.get("messages")), *_items(fields.get("input"))):
        if isinstance(message, dict) and message.get("role") != "assistant":
            _each_text(message, "content", plain)
            _each_text(message, "output", plain)
    for name in ("system", "input", "instructions"):
        _each_text(fields, name, plain)
    return changed


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _each_text(place: JsonObject, name: str, change: Callable[[str], str]) -> None:
    value = place.get(name)
    if isinstance(value, str):
        place[name] = change(value)
    for part in _items(value):
        if isinstance(part, dict) and "role" not in part:
            for inner in ("text", "content"):
                _each_text(part, inner, change)


def _conversation(fields: JsonObject) -> Iterator[JsonObject]:
    """Yield the messages in the template's form, from a request of any of the three interfaces."""
    for name in ("system", "instructions"):
        if fields.get(name):
            yield {"role": "system", "content": _text(fields[name])}
    messages = fields.get("messages") or fields.get("input") or []
    for message in [{"role": "user", "content": messages}] if isinstance(messages, str) else _items(messages):
        if isinstance(message, dict):
            role = str(message.get("role") or "user")
            yield {**message, "role": role, "content": _text(message.get("content") or message.get("output") or "")}


def _ends_with_picture(fields: JsonObject) -> bool:
    messages = _items(fields.get("messages") or fields.get("input"))
    parts = _items(_object(messages[-1]).get("content")) if messages else []
    shown = [part for part in parts if is_picture(part) or _text([part])]
    return bool(shown) and is_picture(shown[-1])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in _items(content) if isinstance(part, dict))
