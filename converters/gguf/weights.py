"""Read weights by name, on demand, so that only one tensor is in memory at a time."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject

_MAX_HEADER = 100 * 2**20  # the safetensors library's own limit
_MAX_INDEX = 64 * 2**20
_COMPARE = "compare its size and sha256 with the original's"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
_RAW_TYPES = {"F8_E4M3": "u1", "I32": "<i4"}
# Bytes of the others. Source: `Dtype` in safetensors/src/tensor.rs of github.com/huggingface/safetensors.
_OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "I32": 4}
_OTHER_BYTES |= {"U32": 4, "I64": 8, "U64": 8}


class Weights(Protocol):
    """Tensors of a source by the source's own names."""

    def names(self) -> set[str]:
        """Return all names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an existing tensor."""

    def load(self, name: str) -> Array:
        """Load an existing tensor as float32."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The location of a tensor: the bytes from `start` to `end` of a file; `type` is the safetensors name."""

    file: Path
    type: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFolder:
    """`model.safetensors`, or the shards that `model.safetensors.index.json` names.

    Raises InputError for a file whose header is inconsistent.
    """

    def __init__(self, folder: Path, stem: str = "model") -> None:
        files = _files(folder, stem)
        self._places: dict[str, Place] = {}
        for file in sorted(files):
            for name, place in _header(file).items():
                if name in self._places:
                    raise InputError(f"{file} contains '{name}', as does another file of the folder", _COMPARE)
                self._places[name] = place

    def names(self) -> set[str]:
        """See `Weights`."""
        return set(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        return self._places[name].shape

    def place(self, name: str) -> Place:
        """Return the location of a tensor."""
        return self._places[name]

    def load(self, name: str) -> Array:
        """See `Weights`; read directly into the returned array."""
        place = self._places[name]
        if place.type not in _TYPES:
            what = f"{place.file}: tensor '{name}' is {place.type}, not one of {', '.join(_TYPES)}"
            raise InputError(what, "convert the model before quantization")
        values = self.load_raw(name)
        if place.type == "BF16":
            wide = values.astype(np.uint32)
            wide <<= 16  # in place: bf16 is the upper half of float32
            values = wide.view(np.float32)
        return values.astype(np.float32, copy=False)

    def load_raw(self, name: str) -> Array:
        """Load a tensor as stored; types that numpy lacks as whole numbers of the same size."""
        place = self._places[name]
        kind = _TYPES.get(place.type) or _RAW_TYPES.get(place.type)
        if kind is None:
            what = f"{place.file}: tensor '{name}' is {place.type}, not one of {', '.join((*_TYPES, *_RAW_TYPES))}"
            raise InputError(what, "convert the model before quantization")
        with place.file.open("rb") as stream:
            stream.seek(place.start)
            values = np.fromfile(stream, kind, (place.end - place.start) // np.dtype(kind).itemsize)
        return values.reshape(place.shape)


def weight_files(folder: Path) -> set[Path]:
    """Return the files of a folder's weights: safetensors, whose headers are checked, else pickles (.bin), unopened.

    Raises InputError for a folder without weights, inconsistent headers, and names outside the folder.
    """
    pickles = not list(folder.glob("*.safetensors")) and list(folder.glob("pytorch_model*.bin"))
    files = _files(folder, "pytorch_model", "bin") if pickles else _files(folder, "model")
    if not pickles:
        for file in files:
            _header(file)
    return files


def _files(folder: Path, stem: str, suffix: str = "safetensors") -> set[Path]:
    index = folder / f"{stem}.{suffix}.index.json"
    single = folder / f"{stem}.{suffix}"
    if not index.is_file():
        if single.is_file():
            return {_path_inside(folder, single.name, single)}
        raise no_weights(folder, stem)
    named = read_json(index, _MAX_INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} has no 'weight_map' from the names of tensors to files", _COMPARE)
    files = {_path_inside(folder, name, index) for name in named.values()}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing[:3])}, which {index.name} names", "copy these files into it"
        )
    return files


def _path_inside(folder: Path, name: str, source: Path) -> Path:
    path = folder / name
    # Names must not leave the folder, but links may: Hugging Face's own cache links to a folder `blobs` elsewhere.
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"{source} names '{name}', which is outside the folder", "do not use this model")
    return path


def no_weights(folder: Path, stem: str) -> InputError:
    """Return the error for a folder without safetensors, with what to do about pickled weights."""
    if list(folder.glob("*.bin")):
        what = f"{folder} has pickled weights (.bin), which could run any code and are never opened"
        hint = "if you trust them: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        return InputError(what, hint)
    return InputError(f"{folder} has no {stem}.safetensors", "edge needs weights in safetensors files")


def read_json(path: Path, largest: int) -> JsonObject:
    """Read a JSON object from an untrusted file. Raises InputError if it is not one."""
    check_size(path, largest)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", _COMPARE) from None
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON object", _COMPARE)
    return document


def check_size(path: Path, largest: int) -> None:
    """Raise InputError for a file of more than `largest` bytes, far more than such files have."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    if size > largest:
        what = (
            f"{path} has {size:,} bytes; edge reads at most {largest:,} of such a file, as a guard against hostile ones"
        )
        raise InputError(what, _COMPARE)


def write_header(stream: BinaryIO, tensors: Mapping[str, tuple[tuple[int, ...], str, int]]) -> None:
    """Write the header of a safetensors file; `tensors` has shape, type and bytes by name, in the file's order."""
    entries, at = {}, 0
    for name, (shape, kind, size) in tensors.items():
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    stream.write(len(text).to_bytes(8, "little") + text)


def float_entry(shape: tuple[int, ...]) -> tuple[tuple[int, ...], str, int]:
    """Return the entry of `write_header` for a tensor in float32."""
    return shape, "F32", 4 * math.prod(shape)


def _header(path: Path) -> dict[str, Place]:
    """Return the location of each tensor. Format: github.com/huggingface/safetensors, "Format"."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            length = int.from_bytes(view[:8], "little")
            if size < 8 or length > size - 8:
                raise _broken_error(path, "its header is longer than the file")
            if length > _MAX_HEADER:
                what = f"{path} has a header of {length:,} bytes; the format allows {_MAX_HEADER:,}"
                raise InputError(what, _COMPARE)
            entries = json.loads(view[8 : 8 + length])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    except (ValueError, RecursionError) as error:
        raise _broken_error(path, f"its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _broken_error(path, "its header is not a JSON object")
    start = 8 + length
    places = {name: _place(path, name, entry, start) for name, entry in entries.items() if name != "__metadata__"}
    end = start
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        if place.start < end:
            raise _broken_error(path, f"tensor '{name}' overlaps another")
        end = place.end
    if end > size:
        raise _broken_error(path, f"it has {size:,} bytes, but its tensors need {end:,}")
    return places


def _place(path: Path, name: str, entry: Any, start: int) -> Place:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(one) is int and one >= 0 for one in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        raise _broken_error(path, f"tensor '{name}' has no type, shape and offsets") from None
    width = np.dtype(_TYPES[kind]).itemsize if kind in _TYPES else _OTHER_BYTES.get(kind)
    if width is None:
        raise InputError(
            f"{path}: tensor '{name}' has the type {kind}, which edge does not support",
            f"what works: {', '.join(_TYPES)}",
        )
    count = 1
    for one in shape:
        count *= one
    if not whole or count * width != end - begin:
        raise _broken_error(path, f"tensor '{name}' of shape {list(shape)} does not fill its {end}-{begin} bytes")
    return Place(file=path, type=kind, shape=shape, start=start + begin, end=start + end)


def _broken_error(path: Path, what: str) -> InputError:
    return InputError(f"{path} is broken: {what}", _COMPARE)


def wanted_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of weights."""
    return sum(int(np.prod(shape)) for shape in shapes.values())
