"""Read the header of an untrusted GGUF file: its metadata and tensor list. Every number is checked.

llama.cpp aborts the process on inconsistent files (lengths past the end, overlapping tensors), so every file is checked
here first. Weights are not read. Format: docs/gguf.md of github.com/ggml-org/ggml, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, NoReturn, Union

from runtimes.errors import InputError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_LONGEST_KEY = 65_535  # by the format's definition
_LONGEST_TEXT = 16 * 2**20  # of one entry: far more than the longest chat template
_COPY = "copy or download the file again, and compare its `sha256sum` with the original's"
_COMPARE = "compare its `sha256sum` with the original's; if they are equal, convert the model again from its source"
_OTHER_FILE = "pass a GGUF file; a web page or a Git LFS pointer may have been downloaded in its place"
_UPDATE = "update edge; if the file needs nothing new, compare its `sha256sum` with the original's"
# The names of split files. Source: llama_split_path in src/llama.cpp of github.com/ggml-org/llama.cpp.
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 99_999  # the names have five digits
_CONTROL = 3  # LLAMA_TOKEN_TYPE_CONTROL

# Type number → (name, weights in a block, bytes of a block). Source: ggml.h and ggml-common.h, as in gguf 0.19.0.
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
# Type number of a metadata value → struct's letter; 8 is text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorInfo:
    """A tensor: `shape` in ggml's order (fastest axis first), `offset` from the start of the file, size in `bytes`."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ArrayInfo:
    """A metadata array. Its values are not kept, only their count."""

    length: int


Value = Union[int, float, bool, str, ArrayInfo]


@dataclass(frozen=True)
class GgufFile:
    """The header of a file; `metadata` in the file's order.

    For a split model, `metadata` is the first part's; `tensors` and `size` cover all parts.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    size: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as "llama"; "unknown" if absent."""
        return self.text("general.architecture") or "unknown"

    @property
    def parameters(self) -> int:
        """The number of weights of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """The mean number of bits per weight over all tensors."""
        return 8 * sum(tensor.bytes for tensor in self.tensors) / max(1, self.parameters)

    def text(self, key: str) -> str | None:
        """A text entry, or None if it is absent or has another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """An integer entry of the architecture, or None if absent. `key` has no prefix: "block_count"."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def bytes_by_type(self) -> dict[str, int]:
        """The size in bytes of all tensors of each type, largest first."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.bytes
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def read_gguf(path: Path) -> GgufFile:
    """Read the header. For the first file of a split model, read and merge the headers of all parts.

    Raises InputError for a file that is not GGUF, damaged, truncated or inconsistent, for a feature that edge does
    not support, and for a missing part.
    """
    first = _read_one(path)
    count = first.metadata.get("split.count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count <= 1:
        return first
    parts = [first, *(_read_one(part) for part in _other_parts(path, first, count))]
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    wanted = first.metadata.get("split.tensors.count", len(tensors))
    if len({tensor.name for tensor in tensors}) != len(tensors) or wanted != len(tensors):
        raise InputError(
            f"{path} and its other parts do not belong together: {len(tensors)} tensors, not {wanted}",
            "put the parts of one and the same model into the folder",
        )
    return replace(first, tensors=tensors, size=sum(part.size for part in parts))


def _other_parts(path: Path, first: GgufFile, count: int) -> list[Path]:
    """Return the other files of a split model. They are found by name, as engines do."""
    match = _PART.fullmatch(path.name)
    number = first.metadata.get("split.no", 0)
    if count > _MAX_PARTS or match is None or int(match[3]) != count:
        what = f"{path} is one of {count} parts of a split model, but is not named as one"
        raise InputError(what, f"restore the names of the parts: NAME-00001-of-{count:05d}.gguf")
    names = [path.with_name(f"{match[1]}-{place:05d}-of-{match[3]}.gguf") for place in range(1, count + 1)]
    if number != 0:
        raise InputError(f"{path} is part {match[2]} of a split model", f"pass the first part: {names[0]}")
    missing = [one.name for one in names if not one.is_file()]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing[:3])}", "put all parts of the model into one folder")
    return names[1:]


def _read_one(path: Path) -> GgufFile:
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Reader(path, view).file()
    except ValueError:  # mmap of an empty file
        raise InputError(f"{path} is empty", _COPY) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None


def control_texts(path: Path) -> re.Pattern[str] | None:
    """Return a pattern of the model's control tokens, the longest first; None if it has none."""
    texts = read_texts(path, "tokenizer.ggml.tokens", where=("tokenizer.ggml.token_type", _CONTROL))
    longer = sorted({text for text in texts if len(text) > 2}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longer))) if longer else None


def read_texts(path: Path, key: str, where: tuple[str, int]) -> list[str]:
    """Return the texts of the metadata array `key` at the positions where the array `where[0]` is `where[1]`.

    The list is empty if one of the two arrays is absent. Raises InputError like `read_gguf`.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        reader = _Reader(path, view)
        reader.kept = {key: [], where[0]: []}
        reader.file()
        texts, numbers = reader.kept[key], reader.kept[where[0]]
        return [text for text, number in zip(texts, numbers) if number == where[1]]


class _Reader:
    """A cursor over the file. Every step is checked against the end of the file."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path = path
        self._view = view
        self._at = 0
        self.kept: dict[str, list[Any]] = {}  # arrays whose values are wanted

    def file(self) -> GgufFile:
        if self._view[:4] != MAGIC:
            self._fail(f"it starts with {self._view[:4]!r}, not with {MAGIC!r}", _OTHER_FILE)
        self._at = 4
        version = self._number("I")
        if version not in _VERSIONS:
            self._unsupported(f"GGUF version {version} (supported: {_VERSIONS[0]} and {_VERSIONS[1]})")
        # A tensor entry has at least 24 bytes, a metadata entry 13, which bounds both counts.
        tensors, entries = self._count("tensors", 24), self._count("metadata entries", 13)
        metadata = dict(self._entry() for _ in range(entries))
        infos = [self._tensor() for _ in range(tensors)]
        return GgufFile(int(version), metadata, self._place_all(infos, metadata), len(self._view))

    def _entry(self) -> tuple[str, Value]:
        key = self._text(_LONGEST_KEY)
        return key, self._value(int(self._number("I")), key)

    def _value(self, kind: int, key: str) -> Value:
        if kind in _SCALARS:
            value: Value = self._number(_SCALARS[kind])
            return value
        if kind not in (_TEXT, _ARRAY):
            self._unsupported(f"the unknown type {kind} of '{key}'")
        return self._text(_LONGEST_TEXT) if kind == _TEXT else self._array(key)

    def _array(self, key: str) -> ArrayInfo:
        kind = int(self._number("I"))
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            length = self._count(f"values in '{key}'", width)
            start = self._skip(length * width)
            if key in self.kept:
                self.kept[key] = list(struct.unpack_from(f"<{length}{_SCALARS[kind]}", self._view, start))
        elif kind == _TEXT:
            length = self._count(f"texts in '{key}'", 8)
            for _ in range(length):
                if key in self.kept:
                    self.kept[key].append(self._text(_LONGEST_TEXT))
                else:
                    self._skip(int(self._number("Q")))
        else:  # the format allows nested arrays, but no model that we know of has one
            self._unsupported(f"'{key}', an array of the type {kind}")
        return ArrayInfo(length)

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text(_LONGEST_KEY)
        dimensions = int(self._number("I"))
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            self._unsupported(f"tensor '{name}' with {dimensions} dimensions")
        shape = tuple(int(self._number("Q")) for _ in range(dimensions))
        return name, int(self._number("I")), shape, int(self._number("Q"))

    def _place_all(
        self, infos: list[tuple[str, int, tuple[int, ...], int]], metadata: Mapping[str, Value]
    ) -> tuple[TensorInfo, ...]:
        """Compute the tensors' positions, and check that they are inside the file and do not overlap."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1) or alignment > 2**20:
            self._unsupported(f"an alignment of {alignment!r}")
        start = -(-self._at // alignment) * alignment
        placed = [self._place(info, start, alignment) for info in infos]
        if len({one.name for one in placed}) != len(placed):
            self._fail("two of its tensors have the same name", _COMPARE)
        end, before = 0, ""
        for one in sorted(placed, key=lambda tensor: tensor.offset):
            if one.offset < end:
                self._fail(f"the tensors '{before}' and '{one.name}' overlap", _COMPARE)
            end, before = one.offset + one.bytes, one.name
        if end > len(self._view):
            self._fail(f"it ends before its tensor '{before}' does: {len(self._view):,} of {end:,} bytes are there")
        return tuple(placed)

    def _place(self, info: tuple[str, int, tuple[int, ...], int], start: int, alignment: int) -> TensorInfo:
        name, kind, shape, offset = info
        if kind not in TENSOR_TYPES:
            self._unsupported(f"the unknown type {kind} of tensor '{name}'")
        type_name, block, width = TENSOR_TYPES[kind]
        if min(shape) < 1:
            self._unsupported(f"the empty tensor '{name}' of shape {list(shape)}")
        if shape[0] % block or offset % alignment:
            self._fail(
                f"tensor '{name}' of shape {list(shape)} and type {type_name} cannot start at {offset}", _COMPARE
            )
        return TensorInfo(name, type_name, shape, start + offset, math.prod(shape) // block * width)

    def _count(self, what: str, least_bytes: int) -> int:
        count = int(self._number("Q"))
        if count * least_bytes > len(self._view) - self._at:
            self._fail(f"it claims {count:,} {what}, more than the file has room for")
        return count

    def _number(self, letter: str) -> Any:
        start = self._skip(struct.calcsize(letter))
        return struct.unpack_from(f"<{letter}", self._view, start)[0]

    def _text(self, longest: int) -> str:
        length = int(self._number("Q"))
        if longest < length <= len(self._view) - self._at:
            self._unsupported(f"a text of {length:,} bytes (supported: {longest:,})")
        start = self._skip(length)
        return self._view[start : start + length].decode("utf-8", "replace")

    def _skip(self, count: int) -> int:
        """Skip `count` bytes and return the position where they start."""
        start = self._at
        if count > len(self._view) - start:
            self._fail("it ends before its header does")
        self._at = start + count
        return start

    def _fail(self, what: str, hint: str = _COPY) -> NoReturn:
        raise InputError(f"{self._path} is not a usable GGUF file: {what}", hint)

    def _unsupported(self, what: str) -> NoReturn:
        raise InputError(f"{self._path} uses {what}, which this version of edge does not support", _UPDATE)
