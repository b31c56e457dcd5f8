"""Weights by name, each read from its file when it is asked for: never more than one tensor in memory."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError

_LARGEST_HEADER = 100 * 2**20  # the safetensors library's own limit
_LARGEST_INDEX = 64 * 2**20
_DAMAGED = "copy or download the folder again"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


class Weights(Protocol):
    """Tensors of a source by the source's own names."""

    def names(self) -> set[str]:
        """Every name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is there."""

    def load(self, name: str) -> Array:
        """A tensor that is there, float32."""


@dataclass(frozen=True)
class _Place:
    file: Path
    type: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFolder:
    """`model.safetensors`, or the shards that `model.safetensors.index.json` names; InputError for what lies."""

    def __init__(self, folder: Path, stem: str = "model") -> None:
        files = _files(folder, stem)
        self._places: dict[str, _Place] = {}
        for file in sorted(files):
            for name, place in _header(file).items():
                if name in self._places:
                    raise InputError(f"{file} holds '{name}', which another file of the folder holds too", _DAMAGED)
                self._places[name] = place

    def names(self) -> set[str]:
        """See `Weights`."""
        return set(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        return self._places[name].shape

    def load(self, name: str) -> Array:
        """See `Weights`; what is read goes straight from the file's pages into the answer."""
        place = self._places[name]
        with place.file.open("rb") as stream:
            stream.seek(place.start)
            values = np.fromfile(
                stream, _TYPES[place.type], (place.end - place.start) // np.dtype(_TYPES[place.type]).itemsize
            )
        if place.type == "BF16":
            wide = values.astype(np.uint32)
            wide <<= 16  # in place: bf16 is the upper half of float32
            values = wide.view(np.float32)
        return values.reshape(place.shape).astype(np.float32, copy=False)


def _files(folder: Path, stem: str) -> set[Path]:
    index = folder / f"{stem}.safetensors.index.json"
    single = folder / f"{stem}.safetensors"
    if not index.is_file():
        if single.is_file():
            return {_confined(folder, single.name, single)}
        raise no_weights(folder, stem)
    named = read_json(index, _LARGEST_INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} names no files", _DAMAGED)
    files = {_confined(folder, name, index) for name in named.values()}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing[:3])}, which its index names", _DAMAGED)
    return files


def _confined(folder: Path, name: str, told: Path) -> Path:
    path = folder / name
    # Hugging Face's own cache is made of links into `blobs` beside the folder: a link may lead anywhere, a name not.
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"{told} names '{name}', which is outside the folder", "do not use this model")
    return path


def no_weights(folder: Path, stem: str) -> InputError:
    """The error for a folder without safetensors, which says what to do about pickled weights."""
    if list(folder.glob("*.bin")):
        what = f"{folder} holds pickled weights (.bin), which could run any code and are never opened"
        hint = "where you trust them: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        return InputError(what, hint)
    return InputError(f"{folder} holds no {stem}.safetensors", "check that the folder is complete")


def read_json(path: Path, largest: int) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for; InputError where it is none."""
    try:
        if path.stat().st_size > largest:
            raise InputError(f"{path} is larger than any such file", "check where the folder comes from")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", _DAMAGED) from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object", _DAMAGED)
    return found


def _header(path: Path) -> dict[str, _Place]:
    """Where each tensor lies. Format: github.com/huggingface/safetensors, "Format"."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            length = int.from_bytes(view[:8], "little")
            if size < 8 or length > min(_LARGEST_HEADER, size - 8):
                raise _lies(path, "its header is longer than the file")
            entries = json.loads(view[8 : 8 + length])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    except (ValueError, RecursionError) as error:
        raise _lies(path, f"its header is no JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _lies(path, "its header is no JSON object")
    start = 8 + length
    places = {name: _place(path, name, entry, start) for name, entry in entries.items() if name != "__metadata__"}
    end = start
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        if place.start < end:
            raise _lies(path, f"tensor '{name}' overlaps another")
        end = place.end
    if end > size:
        raise _lies(path, f"it ends before its tensors do: {size:,} of {end:,} bytes are there")
    return places


def _place(path: Path, name: str, entry: Any, start: int) -> _Place:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(one) is int and one >= 0 for one in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        raise _lies(path, f"tensor '{name}' is not described") from None
    if kind not in _TYPES:
        what = f"{path}: tensor '{name}' is {kind}, not one of {', '.join(_TYPES)}"
        raise InputError(what, "give the model before it was quantised")
    count = 1
    for one in shape:
        count *= one
    if not whole or count * np.dtype(_TYPES[kind]).itemsize != end - begin:
        raise _lies(path, f"tensor '{name}' of shape {list(shape)} does not fill its {end}-{begin} bytes")
    return _Place(path, kind, shape, start + begin, start + end)


def _lies(path: Path, what: str) -> InputError:
    return InputError(f"{path} is broken: {what}", _DAMAGED)


def wanted_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many weights there are."""
    return sum(int(np.prod(shape)) for shape in shapes.values())
