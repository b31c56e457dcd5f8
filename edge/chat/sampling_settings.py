"""The sampling settings that can be changed during a chat, by their llama.cpp names."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from runtimes.llm.session import TextOptions

# The name in /set → the field, its type, and what it means.
SETTINGS: dict[str, tuple[str, type[int] | type[float], str]] = {
    "temp": ("temperature", float, "0 always takes the likeliest token; higher values vary more"),
    "top_k": ("top_k", int, "sample among this many of the likeliest tokens; 0: all"),
    "top_p": ("top_p", float, "sample among the likeliest tokens that together have this probability"),
    "min_p": ("min_p", float, "drop tokens less likely than this fraction of the likeliest one"),
    "repeat_penalty": ("repeat_penalty", float, "over 1: make repeated tokens less likely"),
    "repeat_last_n": ("repeat_last_n", int, "how many recent tokens the penalties consider"),
    "presence_penalty": ("presence_penalty", float, "over 0: make tokens that already occurred less likely"),
    "frequency_penalty": ("frequency_penalty", float, "the same, for each occurrence"),
    "seed": ("seed", int, "seed of the sampling; 'random': a new one each time"),
    "max_tokens": ("max_tokens", int, "limit of the answer; 'none': until the model ends it"),
}
_OPTIONAL = {"seed": "random", "max_tokens": "none"}


def change_setting(options: TextOptions, name: str, text: str) -> TextOptions:
    """Return the options with one setting changed. Raises UsageError for an unknown name or an invalid value."""
    name = name.lstrip("-").replace("-", "_")
    name = {"temperature": "temp"}.get(name, name)
    if name not in SETTINGS:
        matches = difflib.get_close_matches(name, SETTINGS, 1)
        hint = f"did you mean {matches[0]}?" if matches else f"there are: {', '.join(SETTINGS)}"
        raise UsageError(f"there is no setting '{name}'", hint)
    field, kind, _about = SETTINGS[name]
    value: Any = None if text == _OPTIONAL.get(name) else _number(name, kind, text)
    return replace(options, **{field: value})


def _number(name: str, kind: type[int] | type[float], text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name}: '{text}' is not {what}", f"give {what}") from None


def as_lines(options: TextOptions) -> list[str]:
    """List every setting with its value and meaning, one per line."""
    values = {name: getattr(options, field) for name, (field, _kind, _about) in SETTINGS.items()}
    texts = {name: _describe(name, value) for name, value in values.items()}
    return [f"{name:18}{texts[name]:>10}  {about}" for name, (_field, _kind, about) in SETTINGS.items()]


def _describe(name: str, value: float | None) -> str:
    """Format a value as the user writes it; a seed keeps all its digits."""
    if value is None:
        return _OPTIONAL.get(name, "none")
    return str(value) if isinstance(value, int) else f"{value:g}"
