"""The settings of sampling that can be changed during a chat, by the names people know from llama.cpp."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from runtimes.text import TextOptions

# The name that people type → the field, its kind, and what it means.
SETTINGS: dict[str, tuple[str, type[int] | type[float], str]] = {
    "temp": ("temperature", float, "0 always takes the likeliest token, more is more varied"),
    "top_k": ("top_k", int, "draw among so many of the likeliest tokens; 0: all"),
    "top_p": ("top_p", float, "draw among the likeliest tokens that have this share of the probability together"),
    "min_p": ("min_p", float, "leave out tokens less likely than this share of the likeliest one's"),
    "repeat_penalty": ("repeat_penalty", float, "over 1: make repeated tokens less likely"),
    "repeat_last_n": ("repeat_last_n", int, "how far back repetitions count, in tokens"),
    "presence_penalty": ("presence_penalty", float, "over 0: make tokens that were there less likely"),
    "frequency_penalty": ("frequency_penalty", float, "the same, for each time that they were there"),
    "seed": ("seed", int, "what the draws begin with; 'random': another one each time"),
    "max_tokens": ("max_tokens", int, "the longest answer; 'none': until the model ends"),
}
_OPTIONAL = {"seed": "random", "max_tokens": "none"}


def changed(options: TextOptions, name: str, text: str) -> TextOptions:
    """The options with one setting changed; UsageError for a name or value that there is not."""
    name = name.lstrip("-").replace("-", "_")
    name = {"temperature": "temp"}.get(name, name)
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(SETTINGS)}"
        raise UsageError(f"there is no setting '{name}'", hint)
    field, kind, _about = SETTINGS[name]
    changes: dict[str, Any] = {field: None if text == _OPTIONAL.get(name) else _number(name, kind, text)}
    return replace(options, **changes)


def _number(name: str, kind: type[int] | type[float], text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} is '{text}'", f"give {what}") from None


def as_lines(options: TextOptions) -> list[str]:
    """Every setting with its value and what it means, one a line."""
    values = {name: getattr(options, field) for name, (field, _kind, _about) in SETTINGS.items()}
    texts = {name: _OPTIONAL.get(name, "none") if value is None else f"{value:g}" for name, value in values.items()}
    return [f"{name:18}{texts[name]:>10}  {about}" for name, (_field, _kind, about) in SETTINGS.items()]
