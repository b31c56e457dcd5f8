"""The part of an evaluation that runs on the workers of a Dask cluster (`edge.evaluation.cluster`).

A worker needs nothing but edge and the engine: the model and the inputs are sent to it as bytes, and written to
temporary files. The engine runs in a process of its own, as on the machine of the command, so that its crash does not
end the worker.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from edge.evaluation.labeled_inputs import LabeledInput
from edge.evaluation.labeled_masks import LabeledMask
from edge.evaluation.scoring import ScoredInput, score
from edge.inference.inputs import Source
from edge.inference.prediction import Unreadable, predict
from edge.inference.prepared_model import EngineChoice, PreparedModel
from edge.workers.process import Worker
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError, InputError, WorkerCrashedError


@dataclass(frozen=True, kw_only=True)
class SentInput:
    """A labeled input on its way to a worker.

    source: The text, or the file on the machine of the command.
    content: The bytes of that file.
    label: Its label.
    mask: The bytes of the label's file.
    """

    source: Source
    content: bytes
    label: Any
    mask: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Inputs that a worker answers at once, and how.

    model: The model; the worker knows its files from `InstalledModel`.
    runtime, threads, timeout_s: As in `EngineChoice`.
    """

    model: PreparedModel
    runtime: str | None
    threads: int
    timeout_s: float | None
    inputs: tuple[SentInput, ...]


class InstalledModel:
    """The files of a model on a worker, and the engines that have it open.

    Dask keeps it for as long as the command needs it, and copies it from worker to worker as its files' bytes. The
    engines end and the files are removed when Dask drops it.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._lock = Lock()
        self._folder: Path | None = None
        self._idle: list[Worker] = []

    def __reduce__(self) -> tuple[type[InstalledModel], tuple[Mapping[str, bytes]]]:
        return InstalledModel, (self._files,)

    def __sizeof__(self) -> int:
        return sum(map(len, self._files.values()))  # Dask's measure of what a copy costs

    @property
    def folder(self) -> Path:
        """The folder with the model's files, which the first call writes."""
        with self._lock:
            if self._folder is None:
                from distributed import get_worker

                place = Path(tempfile.mkdtemp(prefix="edge-model-", dir=get_worker().local_directory))
                for name, content in self._files.items():
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(content)
                weakref.finalize(self, _drop, place, self._idle).atexit = False
                self._folder = place
            return self._folder

    @contextmanager
    def engine(self) -> Iterator[Worker]:
        """Lend the process of an engine that no other thread uses."""
        with self._lock:
            worker = self._idle.pop() if self._idle else Worker()
        try:
            yield worker
        finally:
            with self._lock:
                self._idle.append(worker)


def _drop(folder: Path, engines: list[Worker]) -> None:
    """End engines and remove files in a thread of their own: Dask drops data in the thread of its connections."""

    def drop() -> None:
        for one in engines:
            one.close()
        shutil.rmtree(folder, ignore_errors=True)

    Thread(target=drop).start()


def score_chunk(installed: InstalledModel, chunk: Chunk) -> list[ScoredInput | Unreadable] | JsonObject:
    """Return what each input of the chunk gives, in their order, or `EdgeError.as_dict` of what went wrong.

    An error is an answer: Dask would have to pickle an exception with all that it refers to.
    """
    try:
        return _score(installed, chunk)
    except EdgeError as error:
        return error.as_dict()
    except Exception as error:
        return WorkerCrashedError(f"a worker failed: {type(error).__name__}: {error}", "see its log").as_dict()


def _score(installed: InstalledModel, chunk: Chunk) -> list[ScoredInput | Unreadable]:
    from distributed import get_worker

    artifact = replace(chunk.model.artifact, path=installed.folder)
    model = replace(chunk.model, artifact=artifact)
    choice = EngineChoice(runtime=chunk.runtime, threads=chunk.threads, timeout_s=chunk.timeout_s)
    with tempfile.TemporaryDirectory(prefix="edge-inputs-") as folder, installed.engine() as worker:
        inputs = [_write_input(one, Path(folder, str(number))) for number, one in enumerate(chunk.inputs)]
        try:
            answers = predict(model, [path for path, _ in inputs], worker, choice)
            return [_rename(one, chunk, folder) for one in score(model.task.id, inputs, answers)]
        except EdgeError as error:
            where = "" if isinstance(error, InputError) else f", on the worker {get_worker().address}"
            error.message = f"{_original(error.message, chunk, folder)}{where}"
            raise


def _write_input(one: SentInput, place: Path) -> LabeledInput:
    """Write the file of an input, and that of its label."""
    label = one.label
    if isinstance(label, LabeledMask):
        label = replace(label, path=_file(place / "mask" / label.path.name, one.mask))
    return _file(place / one.source.name, one.content) if isinstance(one.source, Path) else one.source, label


def _file(place: Path, content: bytes) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def _rename(one: ScoredInput | Unreadable, chunk: Chunk, folder: str) -> ScoredInput | Unreadable:
    if isinstance(one, ScoredInput):
        return one
    error = InputError(_original(one.error.message, chunk, folder), one.error.hint)
    return Unreadable(_original(one.input, chunk, folder), error)


def _original(text: str, chunk: Chunk, folder: str) -> str:
    """Name the files of the machine of the command instead of their copies."""
    for number, one in enumerate(chunk.inputs):
        here = Path(folder, str(number))
        if isinstance(one.label, LabeledMask):
            text = text.replace(str(here / "mask" / one.label.path.name), str(one.label.path))
        text = text.replace(str(here / one.source.name), str(one.source))
    return text
