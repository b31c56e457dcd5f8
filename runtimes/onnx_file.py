"""Which other files does an ONNX model name? Read from its bytes, so that nothing outside its folder is opened.

ONNX is a protocol-buffers message. Only the path to external data is followed; the field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Iterator

from runtimes.errors import InputError

# Message → {field number: the message that it holds}; an entry of external data is a key (1) and a value (2).
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> set[str]:
    """Every location of external data that the model names; InputError when the file is not a readable message."""
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty", "check how the file was made or copied")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            try:
                return set(_locations(view))
            except (IndexError, ValueError) as error:
                message = f"{path} is not an ONNX model: {error}"
                raise InputError(message, "check how the file was made or copied") from None


def check_external_data(path: Path) -> None:
    """InputError when the model names external data outside its own folder, by `..`, absolute path or link."""
    folder = path.parent.resolve()
    for location in sorted(external_files(path)):
        try:
            confined = folder in (folder / location).resolve().parents
        except (OSError, ValueError, RuntimeError):  # a name with a null byte, or a loop of links
            confined = False
        if not confined:
            raise InputError(f"{path} names external data outside its folder: {location!r}", "do not use this model")


def _locations(model: memoryview) -> Iterator[str]:
    pending: list[tuple[str, memoryview]] = [("Model", model)]
    while pending:
        kind, message = pending.pop()
        if kind == "Entry":
            yield from _location(message)
            continue
        children = _CHILDREN[kind]
        for number, value in _fields(message):
            if number in children and isinstance(value, memoryview):
                pending.append((children[number], value))


def _location(entry: memoryview) -> Iterator[str]:
    fields = {number: bytes(value) for number, value in _fields(entry) if isinstance(value, memoryview)}
    if fields.get(1) == b"location":
        yield fields.get(2, b"").decode("utf-8")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field number and content of a message's fields: bytes where it has a length, else 0."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _LENGTH:
            size, position = _varint(message, position)
            if position + size > len(message):
                raise ValueError("it is cut short")
            yield number, message[position : position + size]
            position += size
        elif kind == _VARINT:
            position = _varint(message, position)[1]
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")
