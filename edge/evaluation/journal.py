"""The journal of an evaluation: what each input gave, so that an evaluation that was stopped continues where it was.

One line of JSON for each input: [key of the model and its data, input, engine, its version, latency in ms, record]. A
last line that was not completed, because the process was killed, is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from edge.evaluation.scoring import ScoredInput
from runtimes.errors import InputError, UsageError

_HEAD = "edge evaluate, journal 1\n"
_HINT = "choose another --journal, or remove the file"


class Journal:
    """Reads and extends a journal; a context manager. Without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._stream = path, None if path is None else _open(path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def recorded(self, key: str) -> Mapping[str, ScoredInput]:
        """Return what each input gave that this model has answered already, by the input's name."""
        found: dict[str, ScoredInput] = {}
        if self._stream is None or self._path is None:
            return found
        self._stream.seek(len(_HEAD))
        for number, line in enumerate(iter(self._stream.readline, ""), 2):
            try:
                model, name, *engine, latency, record = json.loads(line)
                runtime, version = engine
                one = ScoredInput(
                    runtime=str(runtime),
                    runtime_version=str(version),
                    latency_ms=float(latency),
                    record=np.asarray(record, np.float64),
                )
            except (ValueError, TypeError):
                raise InputError(f"line {number} of {self._path} is damaged", _HINT) from None
            if model == key:
                found[str(name)] = one
        return found

    def add(self, key: str, name: str, one: ScoredInput) -> None:
        """Append what an input gave; it is in the file when this returns."""
        if self._stream is not None:
            line = [key, name, one.runtime, one.runtime_version, one.latency_ms, one.record.tolist()]
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()


def _open(path: Path) -> IO[str]:
    """Open a journal to extend it, without what follows its last complete line. Raises UsageError for another file."""
    try:
        if path.exists():
            os.truncate(path, _complete_bytes(path))
        stream = path.open("a+", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be used as a journal: {error.strerror}", "choose another --journal") from None
    if stream.tell() == 0:
        stream.write(_HEAD)
        stream.flush()
    return stream


def _complete_bytes(path: Path) -> int:
    """Return the length of a journal up to the end of its last complete line."""
    end = 0
    with path.open("rb") as content:
        head = content.read(len(_HEAD))
        if not _HEAD.encode().startswith(head):
            raise UsageError(f"{path} is not a journal of `edge evaluate`", _HINT)
        end = len(head) if head == _HEAD.encode() else 0
        for line in content:
            end += len(line) if line.endswith(b"\n") else 0
    return end
