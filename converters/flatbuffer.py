"""FlatBuffers and FlexBuffers, read in place without generated code: just what a look into a model file takes.

Every offset is checked before it is followed, which the official Python library leaves to its caller.
Formats: https://flatbuffers.dev/internals/ and https://flatbuffers.dev/flexbuffers/ (and flexbuffers.h).
"""

from __future__ import annotations

import math
import struct
from typing import Any

from converters.bounded import Source

_SIZES = {kind: struct.calcsize(f"<{kind}") for kind in "bBhHiIqQfd"}


class Table:
    """One table of a FlatBuffer; a field is asked for by its place in the schema, from 0, and its struct letter."""

    def __init__(self, source: Source, position: int) -> None:
        source.spend()
        self._source = source
        self._position = position
        self._fields = position - _read(source, position, "i")
        self._fields_size = _read(source, self._fields, "H")

    @classmethod
    def root(cls, source: Source) -> Table:
        """The table that a FlatBuffer starts with; InputError when there is none."""
        return cls(source, _read(source, 0, "I"))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A whole number, such as kind "i" for int32; `default` where the file leaves it out."""
        place = self._place(field)
        return default if place is None else int(_read(self._source, place, kind))

    def table(self, field: int) -> Table | None:
        """A table, or None where there is none; for a union, the field of its value."""
        place = self._place(field)
        return None if place is None else Table(self._source, self._follow(place))

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        self._source.spend(count)
        return [Table(self._source, self._follow(start + 4 * i)) for i in range(count)]

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """A vector of numbers, all of them finite."""
        start, count = self._vector(field, _SIZES[kind])
        self._source.spend(1 + count // 4)
        numbers = struct.unpack(f"<{count}{kind}", self._source.slice(start, count * _SIZES[kind]))
        if kind in "fd" and not all(map(math.isfinite, numbers)):
            raise self._source.broken("it holds a number that is infinite or none")
        return numbers

    def text(self, field: int) -> str:
        """A string, empty where there is none."""
        start, count = self._vector(field, 1)
        return self._source.text(start, count)

    def raw(self, field: int) -> Source:
        """A vector of bytes, not copied."""
        start, count = self._vector(field, 1)
        return self._source.part(start, count)

    def raws(self, field: int) -> list[Source]:
        """A vector of strings that hold bytes, not copied."""
        start, count = self._vector(field, 4)
        self._source.spend(count)
        return [self._bytes_at(self._follow(start + 4 * i)) for i in range(count)]

    def _bytes_at(self, position: int) -> Source:
        return self._source.part(position + 4, _read(self._source, position, "I"))

    def _place(self, field: int) -> int | None:
        """Where a field's value stands; None where the table leaves it out, or was written before it existed."""
        entry = 4 + 2 * field
        if entry + 2 > self._fields_size:
            return None
        offset = _read(self._source, self._fields + entry, "H")
        return self._position + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + int(_read(self._source, place, "I"))

    def _vector(self, field: int, item_size: int) -> tuple[int, int]:
        """Where a vector's items start, and how many there are, all inside the file."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = int(_read(self._source, start, "I"))
        self._source.slice(start + 4, count * item_size)
        return start + 4, count


def flexbuffer_blob(source: Source, key: str) -> Source | None:
    """The bytes under `key` of a FlexBuffer whose root is a map; None where it is no map or has no such key."""
    size = len(source.view)
    if size < 3:
        return None
    root_width, root_type = source.view[size - 1], source.view[size - 2]
    if root_type >> 2 != _FLEX_MAP or root_width not in _UNSIGNED:
        return None
    place = size - 2 - root_width
    start = place - _unsigned(source, place, root_width)
    return _flex_value(source, start, 1 << (root_type & 3), key.encode())


_FLEX_MAP = 9
_FLEX_BYTES = (5, 25)  # a string, a blob
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _flex_value(source: Source, start: int, width: int, key: bytes) -> Source | None:
    """A map is a vector of values, behind it their types; in front of it its size and the vector of its keys."""
    count = _unsigned(source, start - width, width)
    source.slice(start, count * (width + 1))
    keys_width = _unsigned(source, start - 2 * width, width)
    if keys_width not in _UNSIGNED:
        raise source.broken("a FlexBuffer map has no keys")
    keys = start - 3 * width - _unsigned(source, start - 3 * width, width)
    for index in range(count):
        source.spend()
        place = keys + index * keys_width
        name = place - _unsigned(source, place, keys_width)
        kind = source.view[start + count * width + index]
        if bytes(source.slice(name, len(key) + 1)) == key + b"\0" and kind >> 2 in _FLEX_BYTES:
            return _flex_bytes(source, start + index * width, width, 1 << (kind & 3))
    return None


def _flex_bytes(source: Source, place: int, width: int, size_width: int) -> Source:
    start = place - _unsigned(source, place, width)
    return source.part(start, _unsigned(source, start - size_width, size_width))


def _unsigned(source: Source, position: int, width: int) -> int:
    return int(_read(source, position, _UNSIGNED[width]))


def _read(source: Source, position: int, kind: str) -> Any:
    source.spend()
    return struct.unpack(f"<{kind}", source.slice(position, _SIZES[kind]))[0]
