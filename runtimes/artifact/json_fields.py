"""Read JSON objects with type checks, whose errors name the key (`missing value in 'inputs[0].shape'`); write them."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from runtimes.errors import EdgeError, InputError, JsonObject, JsonValue

__all__ = ["Fields", "JsonObject", "JsonValue", "to_json"]

T = TypeVar("T")

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


_CHECK = "check that value in the file"


class Fields:
    """A JSON object that is read key by key. A key that is missing or has another type raises an error.

    document: The file, or another name for the origin of the object.
    path: The object's path within the document.
    hint: The hint of the errors.
    error: The class of the errors.
    """

    def __init__(
        self, values: Any, document: str, path: str = "", *, hint: str = _CHECK, error: type[EdgeError] = InputError
    ) -> None:
        self._document, self._path = document, path
        self._hint, self._kind = hint, error
        if not isinstance(values, dict):
            raise self._error(path or "the document", f"is {_describe(values)}, not an object")
        self.values: Mapping[str, Any] = values

    def text(self, key: str) -> str:
        """A required string."""
        return str(self._typed(key, str))

    def integer(self, key: str) -> int:
        """A required integer."""
        return int(self._typed(key, int))

    def number(self, key: str) -> float:
        """A required number, integer or not."""
        return float(self._typed(key, float))

    def flag(self, key: str) -> bool:
        """A required boolean."""
        return bool(self._typed(key, bool))

    def optional_text(self, key: str) -> str | None:
        """A string, or None if absent."""
        return self.text(key) if self.has(key) else None

    def optional_integer(self, key: str) -> int | None:
        """An integer, or None if absent."""
        return self.integer(key) if self.has(key) else None

    def optional_number(self, key: str) -> float | None:
        """A number, or None if absent."""
        return self.number(key) if self.has(key) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A required list of strings."""
        return tuple(self._items(key, str))

    def integers(self, key: str) -> tuple[int, ...]:
        """A required list of integers."""
        return tuple(self._items(key, int))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A required list of numbers."""
        return tuple(float(item) for item in self._items(key, float))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An optional object whose content is not checked; empty if absent."""
        return self._typed(key, dict) if self.has(key) else {}

    def texts_by_name(self, key: str) -> Mapping[str, str]:
        """An optional object of strings; empty if absent."""
        return {name: str(self._check(item, str, f"{self._at(key)}.{name}")) for name, item in self._pairs(key)}

    def numbers_by_name(self, key: str) -> Mapping[str, float]:
        """An optional object of numbers; empty if absent."""
        return {name: float(self._check(item, float, f"{self._at(key)}.{name}")) for name, item in self._pairs(key)}

    def value(self, key: str) -> Any:
        """A required value of any type."""
        if self.values.get(key) is None:
            raise self._kind(f"{self._document}: missing value in '{self._at(key)}'", self._hint)
        return self.values[key]

    def child(self, key: str) -> Fields:
        """A required nested object."""
        return self._within(self.value(key), self._at(key))

    def children(self, key: str) -> Iterator[Fields]:
        """A required list of nested objects."""
        for index, item in enumerate(self._typed(key, list)):
            yield self._within(item, f"{self._at(key)}[{index}]")

    def optional(self, key: str, read: Callable[[Fields], T]) -> T | None:
        """`read` applied to the object at `key`, or None if absent."""
        return read(self.child(key)) if self.has(key) else None

    def has(self, key: str) -> bool:
        """Return whether `key` has a value other than null."""
        return self.values.get(key) is not None

    def reject(self, key: str, reason: str) -> EdgeError:
        """Build an error about the value at `key`, for the caller to raise."""
        return self._error(self._at(key), reason)

    def _typed(self, key: str, kind: Any) -> Any:
        return self._check(self.value(key), kind, self._at(key))

    def _pairs(self, key: str) -> Iterator[tuple[str, Any]]:
        yield from self.mapping(key).items()

    def _items(self, key: str, kind: Any) -> Sequence[Any]:
        return [self._check(item, kind, f"{self._at(key)}[{i}]") for i, item in enumerate(self._typed(key, list))]

    def _check(self, value: Any, kind: Any, path: str) -> Any:
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            raise self._error(path, f"is {_describe(value)}, not {_NAMES[kind]}")
        if kind is float and isinstance(value, int) and abs(value) > sys.float_info.max:
            raise self._error(path, f"is {_describe(value)}…, which is too large a number")
        return value

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _within(self, values: Any, path: str) -> Fields:
        return Fields(values, self._document, path, hint=self._hint, error=self._kind)

    def _error(self, path: str, reason: str) -> EdgeError:
        return self._kind(f"{self._document}: '{path}' {reason}", self._hint)


def _describe(value: Any) -> str:
    return _NAMES.get(type(value), "null") if not isinstance(value, (str, int, float)) else repr(value)[:40]


def to_json(record: Any) -> JsonObject:
    """Convert a dataclass or a mapping to a JSON object, recursively."""
    if isinstance(record, Mapping):
        return {str(key): _plain(item) for key, item in record.items()}
    return {one.name: _plain(getattr(record, one.name)) for one in fields(record)}


def _plain(value: Any) -> JsonValue:
    if is_dataclass(value) or isinstance(value, Mapping):
        return to_json(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value
