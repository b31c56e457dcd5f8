"""Find the external data files of an ONNX model by parsing its bytes, so that nothing outside its folder is opened.

ONNX is a Protocol Buffers message. Only the path to external data is followed; the field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Iterator

from runtimes.errors import InputError, first_line

# Message → {field number: the type of the nested message}; an entry of external data is a key (1) and a value (2).
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
# Wire types; fixed-width ones with their size in bytes.
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}


def check_external_data(path: Path) -> None:
    """Raise InputError if the model names external data outside its folder, by `..`, absolute path or symlink."""
    folder = path.parent.resolve()
    for location in sorted(external_files(path)):
        try:
            confined = folder in (folder / location).resolve().parents
        except (OSError, ValueError, RuntimeError):  # a name with a null byte, or a loop of links
            confined = False
        if not confined:
            raise InputError(f"{path} names external data outside its folder: {location!r}", "do not use this model")


def is_axis_name(text: str) -> bool:
    """Return whether a file's name of a free axis is one: exporters write "?", "-1" or "None" for any size."""
    return text != "None" and any(letter.isalpha() for letter in text)


def external_files(path: Path) -> set[str]:
    """Return all locations of external data in the model. Raises InputError if the file cannot be parsed."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return set(_locations(content))
    except (OSError, IndexError, ValueError) as error:
        hint = "check how the file was made or copied"
        raise InputError(f"{path} is not a readable ONNX model: {first_line(error)}", hint) from None


def _locations(content: mmap.mmap) -> Iterator[str]:
    pending = [("Model", 0, len(content))]
    while pending:
        kind, start, end = pending.pop()
        if kind == "Entry":
            yield from _location(content, start, end)
            continue
        for number, first, last in _fields(content, start, end):
            if number in _CHILDREN[kind]:
                pending.append((_CHILDREN[kind][number], first, last))


def _location(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    fields = {number: content[first:last] for number, first, last in _fields(content, start, end)}
    if fields.get(1) == b"location":
        yield fields.get(2, b"").decode("utf-8")


def _fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield field number, start and end of every length-delimited field of the message at `position`."""
    while position < end:
        key, position = read_varint(content, position)
        number, kind = key >> 3, key & 7
        size = 0
        if kind == _VARINT:
            position = read_varint(content, position)[1]
        elif kind == _LENGTH:
            size, position = read_varint(content, position)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"there is no wire type {kind}")
        if position + size > end:
            raise ValueError("it is cut short")
        if kind == _LENGTH:
            yield number, position, position + size
        position += size


def read_varint(content: mmap.mmap | memoryview, position: int) -> tuple[int, int]:
    """Read a varint of up to 64 bits. Returns the value and the position after it; raises ValueError if malformed."""
    value = 0
    for index in range(10):
        if position + index >= len(content):
            raise ValueError("it ends in the middle of a number")
        byte = content[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + index + 1
    raise ValueError("a number is longer than 64 bits")
