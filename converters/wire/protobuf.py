"""Read Protocol Buffers in place, without generated code. Only what reading model files needs.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct

from converters.wire.buffer import ByteSource
from runtimes.model_files.onnx import read_varint

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)


class Message:
    """One message. Fields are read by their number in the schema. Values are copied only when they are read."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._numbers: dict[int, list[int]] = {}
        self._parts: dict[int, list[tuple[int, int]]] = {}
        self._reals: dict[int, float] = {}
        position = 0
        while position < len(source.view):
            position = self._field(position)

    def number(self, field: int, default: int = 0) -> int:
        """Read an integer; the last one if the field is repeated, `default` if it is missing."""
        return self._numbers.get(field, [default])[-1]

    def numbers(self, field: int) -> list[int]:
        """Read repeated integers, packed or not."""
        values = list(self._numbers.get(field, []))
        for start, size in self._parts.get(field, []):
            position = start
            while position < start + size:
                self._source.spend()
                value, position = self._varint(position)
                values.append(_to_signed(value))
        return values

    def real(self, field: int) -> float:
        """Read a single-precision number; 0 if the field is missing."""
        return self._reals.get(field, 0.0)

    def text(self, field: int) -> str:
        """Read a string; empty if the field is missing."""
        parts = self._parts.get(field)
        return self._source.text(*parts[-1]) if parts else ""

    def message(self, field: int) -> Message | None:
        """Read a message; None if the field is missing."""
        parts = self._parts.get(field)
        return Message(self._source.part(*parts[-1])) if parts else None

    def messages(self, field: int) -> list[Message]:
        """Read repeated messages."""
        return [Message(self._source.part(*part)) for part in self._parts.get(field, [])]

    def texts(self, field: int) -> list[str]:
        """Read repeated strings."""
        return [self._source.text(*part) for part in self._parts.get(field, [])]

    def has(self, field: int) -> bool:
        """Return whether the field is present."""
        return field in self._numbers or field in self._parts

    def size(self, field: int) -> int:
        """Return the number of bytes that the field's values take."""
        return sum(size for _, size in self._parts.get(field, []))

    def raw(self, field: int) -> ByteSource:
        """Return the bytes of a field, without copying; empty if it is missing."""
        parts = self._parts.get(field)
        return self._source.part(*(parts[-1] if parts else (0, 0)))

    def broken(self, reason: str) -> Exception:
        """Build an InputError about the file, for the caller to raise."""
        return self._source.broken(reason)

    def unsupported(self, what: str) -> Exception:
        """Build an InputError about something that edge does not read, for the caller to raise."""
        return self._source.unsupported(what)

    def _field(self, position: int) -> int:
        """Index the field at `position`. Returns the position of the next one."""
        self._source.spend()
        key, position = self._varint(position)
        field, kind = key >> 3, key & 7
        if field == 0:
            raise self._source.broken("a field has the number 0")
        if kind == _VARINT:
            value, position = self._varint(position)
            self._numbers.setdefault(field, []).append(_to_signed(value))
            return position
        if kind == _BYTES:
            size, position = self._varint(position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        elif kind in _GROUPS:
            raise self._source.unsupported("has a group, a deprecated kind of field")
        else:
            raise self._source.broken(f"a field has the wire type {kind}, which does not exist")
        value_bytes = self._source.slice(position, size)
        if kind == _FIXED32:
            self._reals[field] = struct.unpack("<f", value_bytes)[0]
        if kind == _BYTES:
            self._parts.setdefault(field, []).append((position, size))
        return position + size

    def _varint(self, position: int) -> tuple[int, int]:
        try:
            return read_varint(self._source.view, position)
        except ValueError as error:
            raise self._source.broken(str(error)) from None


def _to_signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
