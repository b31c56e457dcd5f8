"""Expressions of GBNF: strings in JSON that match a regular expression, and integers between two bounds."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Sequence

if sys.version_info >= (3, 11):
    from re import _constants as codes  # type: ignore[attr-defined, unused-ignore]
    from re import _parser as parser  # type: ignore[attr-defined, unused-ignore]
else:
    import sre_constants as codes
    import sre_parse as parser

MAX_INTEGER = 10**15  # below 2^53, so that every JSON parser reads it exactly
# Excluded from sets: what does not stand for itself inside a JSON string.
_EXCLUDED = r'"\\\x7F\x00-\x1F'
_CATEGORIES = {
    codes.CATEGORY_DIGIT: "0-9",
    codes.CATEGORY_WORD: "a-zA-Z0-9_",
    codes.CATEGORY_SPACE: " ",  # tabs and newlines are escapes in JSON
}
_NEGATED = {
    codes.CATEGORY_NOT_DIGIT: "0-9",
    codes.CATEGORY_NOT_WORD: "a-zA-Z0-9_",
    codes.CATEGORY_NOT_SPACE: " ",
}


def literal(text: str) -> str:
    """Return a quoted literal of GBNF."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def string_matching(pattern: str) -> str:
    """Return an expression for the JSON strings that match; "char" is the rule of a character.

    As in JSON schemas, the expression may match a part of the string. Raises ValueError for what GBNF cannot express.
    """
    try:
        tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    items = list(tree)
    begins = bool(items) and items[0] in ((codes.AT, codes.AT_BEGINNING), (codes.AT, codes.AT_BEGINNING_STRING))
    ends = bool(items) and items[-1] in ((codes.AT, codes.AT_END), (codes.AT, codes.AT_END_STRING))
    inner = items[1 if begins else 0 : len(items) - 1 if ends else None]
    parts = ["" if begins else "char*", _sequence(inner), "" if ends else "char*"]
    return f'"\\"" {" ".join(part for part in parts if part)} "\\""'


def _sequence(items: Sequence[Any]) -> str:
    return " ".join(_item(code, value) for code, value in items)


def _item(code: Any, value: Any) -> str:
    if code is codes.LITERAL:
        return literal(json.dumps(chr(value), ensure_ascii=False)[1:-1])
    if code is codes.NOT_LITERAL:
        return f"[^{_EXCLUDED}{_in_set(value)}]"
    if code is codes.ANY:
        return f"[^{_EXCLUDED}\\u2028\\u2029]"  # ends of lines are excluded, as in JavaScript
    if code is codes.IN:
        return _set(value)
    if code is codes.BRANCH:
        return f"({' | '.join(_sequence(branch) or _EMPTY for branch in value[1])})"
    if code is codes.SUBPATTERN:
        _, added, removed, inner = value
        if added or removed:
            raise ValueError("flags are not supported")
        return f"({_sequence(inner) or _EMPTY})"
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = value
        return f"({_sequence(inner)}){_count(int(least), None if most is codes.MAXREPEAT else int(most))}"
    raise ValueError(f"'{str(code).lower()}' is not supported")


_EMPTY = '""'


def _count(least: int, most: Any) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return short or f"{{{least},{'' if most is None else most}}}"


def _set(items: Sequence[Any]) -> str:
    negated = items[0][0] is codes.NEGATE
    found, others = "", []
    for code, value in items[1:] if negated else items:
        if code is codes.LITERAL:
            if not negated and (chr(value) in '"\\' or value < 32):
                others.append(_item(code, value))
            else:
                found += _in_set(value)
        elif code is codes.RANGE:
            found += _range(*value)
        elif code is codes.CATEGORY and value in _CATEGORIES:
            found += _CATEGORIES[value]
        elif code is codes.CATEGORY and value in _NEGATED and not negated:
            others.append(f"[^{_EXCLUDED}{_NEGATED[value]}]")
        else:
            raise ValueError("this set of characters is not supported")
    if negated:
        return f"[^{_EXCLUDED}{found}]"
    parts = ([f"[{found}]"] if found else []) + others
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def _range(first: int, last: int) -> str:
    """Return a range of a set without the characters that are escaped in JSON."""
    cuts = [number for number in (ord('"'), ord("\\"), 0x7F) if first <= number <= last]
    found, start = "", max(first, 32)
    for cut in [*cuts, last + 1]:
        if start < cut:
            found += f"{_in_set(start)}-{_in_set(cut - 1)}"
        start = cut + 1
    return found


def _in_set(value: int) -> str:
    letter = chr(value)
    if value < 32 or value == 0x7F:
        return f"\\x{value:02X}"
    return f"\\{letter}" if letter in "[]\\" else f"\\x{value:02X}" if letter in '^-"' else letter


def integer(low: int | None, high: int | None) -> str:
    """Return an expression for the integers from `low` to `high`, both included; None is unbounded."""
    most = MAX_INTEGER - 1
    low, high = max(-most, -most if low is None else low), min(most, most if high is None else high)
    parts = []
    if low < 0:
        parts += [f'"-" ({" | ".join(_between(max(1, -high), -low))})']
    if high >= 0:
        parts += _between(max(0, low), high)
    return f"({' | '.join(parts)})"


def _between(low: int, high: int) -> list[str]:
    """Return alternatives for the numbers of `low` to `high`, which are not negative, by their count of digits."""
    found = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        found += _same_length(str(first), str(min(high, 10**digits - 1)))
    return found


def _same_length(low: str, high: str) -> list[str]:
    """Return alternatives for the numbers between two of as many digits."""
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return [_digit(low[0], high[0]) + _any(rest)]
    if low[0] == high[0]:
        inner = _same_length(low[1:], high[1:])
        return [f'"{low[0]}" ({" | ".join(inner)})']
    found = [f'"{low[0]}" ({" | ".join(_same_length(low[1:], "9" * rest))})']
    if int(high[0]) - int(low[0]) > 1:
        found.append(_digit(str(int(low[0]) + 1), str(int(high[0]) - 1)) + _any(rest))
    return [*found, f'"{high[0]}" ({" | ".join(_same_length("0" * rest, high[1:]))})']


def _digit(low: str, high: str) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"


def _any(count: int) -> str:
    return f" [0-9]{{{count}}}" if count else ""
