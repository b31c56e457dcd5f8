"""What a measurement writes down while it runs, so that a process that dies takes no sample with it.

    FOLDER/job.json      what was asked for
    FOLDER/begun.json    what was known when the timed loop began, as `runtimes.measure` answers it
    FOLDER/NNNN.times    clock readings in ns of one loop, int64: 0 where the loop has not come to
    FOLDER/answer.json   the answer, when there is one

The readings go into a file that is mapped into memory: the loop stores a number, as it does without, and the
system writes it to the disk when it likes. They survive the process, and most of them a board that loses its power.
"""

from __future__ import annotations

import json
import mmap
from array import array
from pathlib import Path
from typing import Any, Mapping

import numpy as np

_INT64 = 8


class Keep:
    """Writes it down in `folder`; where that is None, or the disk is full, in memory alone."""

    def __init__(self, folder: Path | None, job: Mapping[str, Any]) -> None:
        self._folder, self._loops = folder, 0
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            self._folder = None
        self._write("job.json", job)

    def times(self, count: int) -> Any:
        """Room for so many clock readings, all 0."""
        if self._folder is not None:
            try:
                return self._mapped(self._folder / f"{self._loops:04d}.times", count)
            except OSError:
                self._folder = None
        return array("q", bytes(_INT64 * count))

    def begin(self, known: Mapping[str, Any]) -> None:
        """Write down what is known when the timed loop begins."""
        self._write("begun.json", known)

    def finish(self, answer: Mapping[str, Any]) -> None:
        """Write down the answer."""
        self._write("answer.json", answer)

    def _mapped(self, path: Path, count: int) -> Any:
        self._loops += 1
        # Written, not truncated to size: a disk that fills up later would end the process with SIGBUS.
        path.write_bytes(bytes(_INT64 * count))
        with path.open("r+b") as stream:
            mapped = mmap.mmap(stream.fileno(), _INT64 * count)
        return memoryview(mapped).cast("q")

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        part = self._folder / f".{name}"
        try:
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(self._folder / name)
        except OSError:
            self._folder = None


def recover(folder: Path) -> dict[str, Any] | None:
    """{"job", "values"} of what a measurement has left in `folder`, or None where it had taken no sample.

    `values` is the answer, where there was one; else its keys as far as they are known, with the samples taken.
    """
    job, begun, answer = (_read(folder / name) for name in ("job.json", "begun.json", "answer.json"))
    if job is None:
        return None
    if answer is not None:
        return {"job": job, "values": answer}
    samples = [sample for path in sorted(folder.glob("*.times")) for sample in samples_of(path)]
    if begun is None or not samples:
        return None
    return {"job": job, "values": {**begun, "samples_ms": samples, "total_s": sum(samples) / 1e3}}


def samples_of(path: Path) -> list[float]:
    """The samples in ms of a loop, as far as it came."""
    content = path.read_bytes()
    readings = np.frombuffer(content[: len(content) // _INT64 * _INT64], np.int64)
    return [float(sample) for sample in np.diff(readings[readings != 0]) / 1e6]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
