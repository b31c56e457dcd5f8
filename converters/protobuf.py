"""Protocol Buffers, read in place without generated code: just what a look into a model file takes.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct

from converters.bounded import Source

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Message:
    """One message; a field is asked for by its number in the schema. Nothing is copied until it is asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._numbers: dict[int, list[int]] = {}
        self._parts: dict[int, list[tuple[int, int]]] = {}
        self._reals: dict[int, float] = {}
        position = 0
        while position < len(source.view):
            position = self._field(position)

    def number(self, field: int, default: int = 0) -> int:
        """A whole number; where it is repeated, the last one counts."""
        return self._numbers.get(field, [default])[-1]

    def numbers(self, field: int) -> list[int]:
        """Repeated whole numbers, packed or not."""
        found = list(self._numbers.get(field, []))
        for start, size in self._parts.get(field, []):
            position = start
            while position < start + size:
                self._source.spend()
                value, position = self._varint(position)
                found.append(_signed(value))
        return found

    def real(self, field: int) -> float:
        """A number of single precision, 0 where there is none."""
        return self._reals.get(field, 0.0)

    def text(self, field: int) -> str:
        """A string, empty where there is none."""
        parts = self._parts.get(field)
        return self._source.text(*parts[-1]) if parts else ""

    def message(self, field: int) -> Message | None:
        """A message, or None where there is none."""
        parts = self._parts.get(field)
        return Message(self._source.part(*parts[-1])) if parts else None

    def messages(self, field: int) -> list[Message]:
        """Repeated messages."""
        return [Message(self._source.part(*part)) for part in self._parts.get(field, [])]

    def texts(self, field: int) -> list[str]:
        """Repeated strings."""
        return [self._source.text(*part) for part in self._parts.get(field, [])]

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return field in self._numbers or field in self._parts

    def size(self, field: int) -> int:
        """How many bytes the field's value takes."""
        return sum(size for _, size in self._parts.get(field, []))

    def raw(self, field: int) -> Source:
        """The bytes of a field, not copied; none where it is left out."""
        parts = self._parts.get(field)
        return self._source.part(*(parts[-1] if parts else (0, 0)))

    def broken(self, reason: str) -> Exception:
        """An InputError about the file, for the caller to raise."""
        return self._source.broken(reason)

    def _field(self, position: int) -> int:
        """Take in the field at `position`; returns where the next one starts."""
        self._source.spend()
        key, position = self._varint(position)
        field, kind = key >> 3, key & 7
        if field == 0:
            raise self._source.broken("a field has the number 0")
        if kind == _VARINT:
            value, position = self._varint(position)
            self._numbers.setdefault(field, []).append(_signed(value))
            return position
        if kind == _BYTES:
            size, position = self._varint(position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise self._source.broken(f"a field is of the unknown kind {kind}")
        value_bytes = self._source.slice(position, size)
        if kind == _FIXED32:
            self._reals[field] = struct.unpack("<f", value_bytes)[0]
        if kind == _BYTES:
            self._parts.setdefault(field, []).append((position, size))
        return position + size

    def _varint(self, position: int) -> tuple[int, int]:
        """An unsigned number of up to 64 bits, and where the next thing starts."""
        view, value = self._source.view, 0
        for index in range(10):
            if position + index >= len(view):
                raise self._source.broken("it ends in the middle of a number")
            byte = view[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, position + index + 1
        raise self._source.broken("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
