"""A journal of a running measurement, so that no samples are lost if the process dies.

    FOLDER/job.json      the job
    FOLDER/begun.json    the part of the answer that was known when the timed loop began
    FOLDER/NNNN.times    clock readings in ns of one loop, int64: 0 for runs that did not happen
    FOLDER/answer.json   the answer, once complete

The readings are stored in a memory-mapped file: the loop only stores a number, and the system writes it to disk later.
They survive a crash of the process, and most of them a power failure of the board.
"""

from __future__ import annotations

import json
import mmap
from array import array
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from runtimes.artifact.json_fields import JsonObject
from runtimes.measurement.answer import MeasureAnswer

_INT64 = 8


class JobSamples(TypedDict):
    """The content of a journal: the job, and its answer as far as it is known."""

    job: JsonObject
    values: MeasureAnswer


class SampleJournal:
    """Writes the journal to `folder`; if that is None or the disk is full, samples are kept in memory only."""

    def __init__(self, folder: Path | None, job: JsonObject) -> None:
        self._folder, self._loops = folder, 0
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            self._folder = None
        self._write("job.json", job)

    def times(self, count: int) -> Any:
        """Allocate a zeroed buffer for `count` clock readings."""
        if self._folder is not None:
            try:
                return self._map_file(self._folder / f"{self._loops:04d}.times", count)
            except OSError:
                self._folder = None
        return array("q", bytes(_INT64 * count))

    def begin(self, known: MeasureAnswer) -> None:
        """Record what is known when the timed loop begins."""
        self._write("begun.json", known)

    def finish(self, answer: MeasureAnswer) -> None:
        """Record the answer."""
        self._write("answer.json", answer)

    def _map_file(self, path: Path, count: int) -> Any:
        self._loops += 1
        # Write zeros instead of truncating to size: with a sparse file, a full disk would raise SIGBUS later.
        path.write_bytes(bytes(_INT64 * count))
        with path.open("r+b") as stream:
            mapped = mmap.mmap(stream.fileno(), _INT64 * count)
        return memoryview(mapped).cast("q")

    def _write(self, name: str, content: JsonObject | MeasureAnswer) -> None:
        if self._folder is None:
            return
        part = self._folder / f".{name}"
        try:
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(self._folder / name)
        except OSError:
            self._folder = None


def recover(folder: Path) -> JobSamples | None:
    """Read {"job", "values"} from a journal, or None if it contains no samples.

    `values` is the answer if it is complete, else its known keys plus the samples taken.
    """
    job: JsonObject | None = _read(folder / "job.json")
    begun: MeasureAnswer | None = _read(folder / "begun.json")
    answer: MeasureAnswer | None = _read(folder / "answer.json")
    if job is None:
        return None
    if answer is not None:
        return {"job": job, "values": answer}
    samples = [sample for path in sorted(folder.glob("*.times")) for sample in samples_of(path)]
    if begun is None or not samples:
        return None
    values: MeasureAnswer = {**begun, "samples_ms": samples, "total_s": sum(samples) / 1e3}
    return {"job": job, "values": values}


def samples_of(path: Path) -> list[float]:
    """Return the samples in ms of a loop, as far as it got."""
    content = path.read_bytes()
    readings = np.frombuffer(content[: len(content) // _INT64 * _INT64], np.int64)
    return [float(sample) for sample in np.diff(readings[readings != 0]) / 1e6]


def _read(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
