"""Read FlatBuffers and FlexBuffers in place, without generated code. Only what reading model files needs.

Every offset is checked before it is followed; the official Python library leaves that to its caller.
Formats: https://flatbuffers.dev/internals/ and https://flatbuffers.dev/flexbuffers/ (and flexbuffers.h).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from converters.wire.buffer import ByteSource

_SIZES = {kind: struct.calcsize(f"<{kind}") for kind in "bBhHiIqQfd"}


class Table:
    """One table of a FlatBuffer. Fields are read by their index in the schema, from 0, and their struct letter."""

    def __init__(self, source: ByteSource, position: int) -> None:
        source.spend()
        self._source = source
        self._position = position
        self._fields = position - _read(source, position, "i")
        self._fields_size = _read(source, self._fields, "H")

    @classmethod
    def root(cls, source: ByteSource) -> Table:
        """Return the root table of a FlatBuffer. Raises InputError if there is none."""
        return cls(source, _read(source, 0, "I"))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Read an integer, such as kind "i" for int32; `default` if the field is missing."""
        place = self._place(field)
        return default if place is None else int(_read(self._source, place, kind))

    def table(self, field: int) -> Table | None:
        """Read a table, or None if the field is missing; for a union, the field of its value."""
        place = self._place(field)
        return None if place is None else Table(self._source, self._follow(place))

    def tables(self, field: int) -> list[Table]:
        """Read a vector of tables."""
        start, count = self._vector(field, 4)
        self._source.spend(count)
        return [Table(self._source, self._follow(start + 4 * i)) for i in range(count)]

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """Read a vector of numbers. Raises InputError if one is infinite or NaN."""
        start, count = self._vector(field, _SIZES[kind])
        self._source.spend(1 + count // 4)
        numbers = struct.unpack(f"<{count}{kind}", self._source.slice(start, count * _SIZES[kind]))
        if kind in "fd" and not all(map(math.isfinite, numbers)):
            raise self._source.broken("it contains a number that is infinite or NaN")
        return numbers

    def text(self, field: int) -> str:
        """Read a string; empty if the field is missing."""
        start, count = self._vector(field, 1)
        return self._source.text(start, count)

    def raw(self, field: int) -> ByteSource:
        """Return a vector of bytes, without copying."""
        start, count = self._vector(field, 1)
        return self._source.part(start, count)

    def raws(self, field: int) -> list[ByteSource]:
        """Return a vector of byte strings, without copying."""
        start, count = self._vector(field, 4)
        self._source.spend(count)
        return [self._bytes_at(self._follow(start + 4 * i)) for i in range(count)]

    def _bytes_at(self, position: int) -> ByteSource:
        return self._source.part(position + 4, _read(self._source, position, "I"))

    def _place(self, field: int) -> int | None:
        """Return the position of a field's value; None if the field is missing or newer than the table's schema."""
        entry = 4 + 2 * field
        if entry + 2 > self._fields_size:
            return None
        offset = _read(self._source, self._fields + entry, "H")
        return self._position + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + int(_read(self._source, place, "I"))

    def _vector(self, field: int, item_size: int) -> tuple[int, int]:
        """Return the position of a vector's first item and the number of items. Raises InputError beyond the file."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = int(_read(self._source, start, "I"))
        self._source.slice(start + 4, count * item_size)
        return start + 4, count


def flexbuffer_blob(source: ByteSource, key: str) -> ByteSource | None:
    """Return the bytes under `key` of a FlexBuffer whose root is a map. None if it is not a map or lacks `key`."""
    found = _flex_value(source, key)
    if found is None or found.kind not in _FLEX_BYTES:
        return None
    start = found.place - _unsigned(source, found.place, found.width)
    return source.part(start, _unsigned(source, start - found.own_width, found.own_width))


def flexbuffer_number(source: ByteSource, key: str) -> int | None:
    """Return the integer ≥ 0 under `key` of a FlexBuffer, as `flexbuffer_blob` does."""
    found = _flex_value(source, key)
    return _unsigned(source, found.place, found.width) if found is not None and found.kind in _FLEX_INTEGERS else None


@dataclass(frozen=True, kw_only=True)
class _FlexValue:
    """A value in a FlexBuffer.

    kind: Its type.
    place: Where it is, or for bytes the distance back to it.
    width: The size of that.
    own_width: The size of a vector's length and items.
    """

    kind: int
    place: int
    width: int
    own_width: int


def _flex_value(source: ByteSource, key: str) -> _FlexValue | None:
    """Look up a key in a FlexBuffer; None if its root is not a map, or lacks the key."""
    size = len(source.view)
    if size < 3:
        return None
    root_width, root_type = source.view[size - 1], source.view[size - 2]
    if root_type >> 2 != _FLEX_MAP or root_width not in _UNSIGNED:
        return None
    place = size - 2 - root_width
    start = place - _unsigned(source, place, root_width)
    return _in_flex_map(source, start, 1 << (root_type & 3), key.encode())


_FLEX_MAP = 9
_FLEX_BYTES = (5, 25)  # a string, a blob
_FLEX_INTEGERS = (1, 2)  # signed, unsigned
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _in_flex_map(source: ByteSource, start: int, width: int, key: bytes) -> _FlexValue | None:
    """Look up `key` in the map at `start`.

    A map is a vector of values followed by their types, and preceded by its size and its vector of keys.
    """
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
        source.slice(name, 1)  # another key may be shorter, and end the buffer
        if bytes(source.view[name : name + len(key) + 1]) == key + b"\0":
            return _FlexValue(kind=kind >> 2, place=start + index * width, width=width, own_width=1 << (kind & 3))
    return None


def _unsigned(source: ByteSource, position: int, width: int) -> int:
    return int(_read(source, position, _UNSIGNED[width]))


def _read(source: ByteSource, position: int, kind: str) -> Any:
    source.spend()
    return struct.unpack(f"<{kind}", source.slice(position, _SIZES[kind]))[0]
