"""Numpy arrays by name, and reading them from files that nobody vouches for."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import InputError

Array = NDArray[Any]
Arrays = Dict[str, Array]

LARGEST = 2 * 2**30


def load_arrays(path: Path, largest: int = LARGEST, hint: str = "write the file again") -> Arrays:
    """Read an `.npz` of plain arrays; InputError when it is broken, pickled, or over `largest` bytes unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > largest:
            raise InputError(f"{path} would unpack to {unpacked} bytes; the limit is {largest}", hint)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _plain(arrays[name]) for name in arrays.files}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path} is not a readable .npz of plain arrays: {error}", hint) from None


def _plain(value: Any) -> Array:
    if not isinstance(value, np.ndarray):  # numpy hands out the bytes of an entry that is no array
        raise ValueError("an entry is not an array")
    return value
