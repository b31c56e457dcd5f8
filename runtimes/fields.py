"""Typed reading of JSON objects whose errors carry the key path: `missing value in 'inputs[0].shape'`."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from runtimes.errors import InputError

T = TypeVar("T")

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Fields:
    """One JSON object, read key by key; `path` is where it stands in its document, `document` the file's name."""

    def __init__(self, values: Any, document: str, path: str = "") -> None:
        self._document = document
        self._path = path
        if not isinstance(values, dict):
            raise self._error(path or "the document", f"is {_describe(values)}, not an object")
        self._values: Mapping[str, Any] = values

    def text(self, key: str) -> str:
        """A required string."""
        return str(self._typed(key, str))

    def whole(self, key: str) -> int:
        """A required integer."""
        return int(self._typed(key, int))

    def number(self, key: str) -> float:
        """A required number, integer or not."""
        return float(self._typed(key, float))

    def texts(self, key: str) -> tuple[str, ...]:
        """A required list of strings."""
        return tuple(self._items(key, str))

    def wholes(self, key: str) -> tuple[int, ...]:
        """A required list of integers."""
        return tuple(self._items(key, int))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A required list of numbers."""
        return tuple(float(item) for item in self._items(key, float))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An optional object whose content is not checked; empty where absent."""
        return self._typed(key, dict) if self.has(key) else {}

    def value(self, key: str) -> Any:
        """A required value of any kind."""
        if self._values.get(key) is None:
            raise InputError(
                f"{self._document}: missing value in '{self._at(key)}'",
                "write the artifact again with `edge convert`",
            )
        return self._values[key]

    def child(self, key: str) -> Fields:
        """A required object, to be read in turn."""
        return Fields(self.value(key), self._document, self._at(key))

    def children(self, key: str) -> Iterator[Fields]:
        """A required list of objects, each to be read in turn."""
        for index, item in enumerate(self._typed(key, list)):
            yield Fields(item, self._document, f"{self._at(key)}[{index}]")

    def optional(self, key: str, read: Callable[[Fields], T]) -> T | None:
        """`read` applied to the object at `key`, or None where there is none."""
        return read(self.child(key)) if self.has(key) else None

    def has(self, key: str) -> bool:
        """Whether `key` holds a value other than null."""
        return self._values.get(key) is not None

    def reject(self, key: str, reason: str) -> InputError:
        """An error about the value at `key`, for the caller to raise."""
        return self._error(self._at(key), reason)

    def _typed(self, key: str, kind: Any) -> Any:
        return self._checked(self.value(key), kind, self._at(key))

    def _items(self, key: str, kind: Any) -> Sequence[Any]:
        return [self._checked(item, kind, f"{self._at(key)}[{i}]") for i, item in enumerate(self._typed(key, list))]

    def _checked(self, value: Any, kind: Any, path: str) -> Any:
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            raise self._error(path, f"is {_describe(value)}, not {_NAMES[kind]}")
        return value

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _error(self, path: str, reason: str) -> InputError:
        return InputError(f"{self._document}: '{path}' {reason}", "write the artifact again with `edge convert`")


def _describe(value: Any) -> str:
    return _NAMES.get(type(value), "null") if not isinstance(value, (str, int, float)) else repr(value)[:40]
