"""Read untrusted zip archives: members are read up to a limit, and nothing is unpacked to disk."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtimes.errors import InputError

# The graph of the largest known exported program has about 20 MB; weights are never read.
_MAX_JSON_BYTES = 64 * 2**20
_DAMAGED = "compare its size and sha256 with the original's"
_OTHER_VERSION = "it may have been written by a version of its framework that edge does not support, or be damaged"
_ZIP_ERRORS = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class Archive:
    """A zip archive opened for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reading(path):
            self._zip = zipfile.ZipFile(path)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """The members' names, in the archive's order."""
        return self._zip.namelist()

    def read(self, name: str, limit: int) -> bytes:
        """Read a member. Raises InputError if it is missing, damaged, or unpacks to more than `limit` bytes."""
        with _reading(self._path):
            if name not in self._zip.namelist():
                raise InputError(f"{self._path} contains no '{name}', which edge needs to read it", _OTHER_VERSION)
            with self._zip.open(name) as stream:
                content = stream.read(limit + 1)
        if len(content) > limit:
            what = f"{self._path}: '{name}' unpacks to more than {limit} bytes, edge's limit against malicious files"
            raise InputError(what, "if you trust the file, export the model to another format, such as ONNX")
        return content

    def json(self, name: str) -> Any:
        """Parse a member as JSON."""
        text = self.read(name, _MAX_JSON_BYTES)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self._path} is broken: '{name}' is not JSON: {error}", _DAMAGED) from None


@contextmanager
def expecting(path: Path, what: str) -> Iterator[None]:
    """Map errors from an unexpected structure of a JSON document to InputError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: edge cannot read its {what} ({type(error).__name__}: {error})",
            _OTHER_VERSION,
        ) from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:  # another compression method, or encryption
        raise InputError(
            f"{path}: edge cannot unpack it: {error}", "pack it again, unencrypted and with deflate"
        ) from None
    except _ZIP_ERRORS as error:
        raise InputError(f"{path} is broken: {error}", _DAMAGED) from None
