"""Named numpy arrays, and reading them from untrusted files."""

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

MAX_NPZ_BYTES = 2 * 2**30


def load_arrays(path: Path, largest: int = MAX_NPZ_BYTES, hint: str = "write the file again") -> Arrays:
    """Read an `.npz` of plain arrays.

    Raises InputError if it is broken, holds pickles, or unpacks to more than `largest` bytes.
    """
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
        MemoryError,  # a header that promises more than the entry holds
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path} is not a readable .npz of plain arrays: {error}", hint) from None


def _plain(value: Any) -> Array:
    if not isinstance(value, np.ndarray):  # numpy returns raw bytes for an entry that is not an array
        raise ValueError("an entry is not an array")
    return value


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an `.npz` under exactly this name (numpy itself would append a suffix).

    Raises InputError if the file cannot be written.
    """
    try:
        with path.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type] # numpy's stubs see allow_pickle
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", "choose a folder that is writable") from None
