"""Typed reading of TOML tables; every error names the file and the key path: `missing value in 'cpu.cores'`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TomlValue = str | int | float | bool | date | time | Sequence["TomlValue"] | Mapping[str, "TomlValue"]

_NAMES: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class ProfileError(ValueError):
    """An invalid profile; `message` says what is wrong and where, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


class TomlTable:
    """A TOML table that is read key by key. Use `read`, which rejects keys that the reader does not know."""

    def __init__(self, values: Mapping[str, TomlValue], document: str, path: str = "") -> None:
        self._values = values
        self._document = document
        self._path = path
        self._asked: set[str] = set()

    def read(self, reader: Callable[[TomlTable], T]) -> T:
        """Return `reader(self)`. Raises `ProfileError` if the table has a key that the reader did not read."""
        result = reader(self)
        for key in self._values:
            if key not in self._asked:
                raise self.error(key, "unknown key", suggestion(key, self._asked))
        return result

    def require(self, key: str, kind: type[T]) -> T:
        """Return the required value of `key`, which must be a `kind` (a `float` may be written as an integer)."""
        self._asked.add(key)
        if key not in self._values:
            misspelt = get_close_matches(key, [one for one in self._values if one not in self._asked], n=1)
            raise self.error(key, "missing value", f"is it {misspelt[0]} there?" if misspelt else "")
        return self._check(self._values[key], kind, key)

    def find(self, key: str, kind: type[T]) -> T | None:
        """Like `require`, but None if `key` is absent."""
        self._asked.add(key)
        return self.require(key, kind) if key in self._values else None

    def text(self, key: str) -> str:
        """A required non-empty string."""
        text = self.require(key, str).strip()
        if not text:
            raise self.error(key, "empty text")
        return text

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if `key` is absent."""
        items = self.find(key, list) or []
        return tuple(self._check(item, str, f"{key}[{index}]") for index, item in enumerate(items))

    def word(self, key: str, allowed: Collection[str]) -> str:
        """A required string, one of `allowed`."""
        return self._check_allowed(self.text(key), key, allowed)

    def words(self, key: str, allowed: Collection[str]) -> tuple[str, ...]:
        """A required non-empty list of strings, each one of `allowed`."""
        self.require(key, list)
        words = self.texts(key)
        if not words:
            raise self.error(key, "empty list")
        return tuple(self._check_allowed(word, f"{key}[{index}]", allowed) for index, word in enumerate(words))

    def group(self, key: str, reader: Callable[[TomlTable], T]) -> T | None:
        """Parse the table at `key` with `reader`; None if absent."""
        values = self.find(key, dict)
        return None if values is None else TomlTable(values, self._document, self._at(key)).read(reader)

    def groups(self, key: str, reader: Callable[[TomlTable], T]) -> tuple[T, ...]:
        """Parse the list of tables at `key` with `reader`; empty if absent."""
        items = self.find(key, list) or []
        checked = [self._check(item, dict, f"{key}[{index}]") for index, item in enumerate(items)]
        paths = [self._at(f"{key}[{index}]") for index in range(len(items))]
        return tuple(
            TomlTable(item, self._document, path).read(reader) for item, path in zip(checked, paths, strict=True)
        )

    def error(self, key: str, reason: str, hint: str = "") -> ProfileError:
        """Build an error about `key`, for the caller to raise."""
        return ProfileError(f"{self._document}: {reason} in '{self._at(key)}'", hint)

    def _check(self, value: Any, kind: type[T], key: str) -> T:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:  # not isinstance, which would accept True as an integer
            found = _NAMES.get(type(value), type(value).__name__)
            raise self.error(key, f"wrong type ({found}, not {_NAMES[kind]})")
        return value

    def _check_allowed(self, word: str, key: str, allowed: Collection[str]) -> str:
        if word not in allowed:
            raise self.error(key, f"unknown word '{word}'", suggestion(word, allowed))
        return word

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def read_toml(path: Path, reader: Callable[[TomlTable], T]) -> T:
    """Parse the file at `path` with `reader`. Raises `ProfileError` if it is not TOML."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path.name}: not valid TOML: {error}") from error
    return TomlTable(values, path.name).read(reader)


def suggestion(word: str, known: Collection[str]) -> str:
    """Return `did you mean cores?` if something in `known` is close, else all of `known`."""
    near = get_close_matches(word.lower(), sorted(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(sorted(known))}"
