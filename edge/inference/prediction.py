"""Predict from files: read inputs here, run them in a worker process, and decode the outputs for the model's task."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edge.inference.images import decode
from edge.inference.inputs import Sample, Source, is_array_file, is_text, read_array_samples, read_picture_sample
from edge.inference.prepared_model import EngineChoice, PreparedModel
from edge.inference.sounds import is_sound_file, read_sound_samples
from edge.inference.texts import read_text_sample
from edge.tasks import task_view
from edge.workers.process import Worker
from runtimes.arrays import Arrays, load_arrays
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError, UsageError
from runtimes.jobs import RunAnswer
from runtimes.session import concrete_shape
from runtimes.task import Result, named_outputs
from runtimes.tasks.sound import Sound, join_windows

if TYPE_CHECKING:
    from PIL.Image import Image

S = TypeVar("S", Path, Source)
T = TypeVar("T")
_AT_ONCE = 64  # pictures per job: 40 MB of float inputs at 224 × 224
_JOB_NUMBERS = 16 << 20  # in the inputs and outputs of a job: a board has to hold them, 4 bytes each, next to the model


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's result for one input.

    input: The file, followed by `[N]` if it contains several samples.
    is_picture: Whether the input is a picture.
    task: The task's id.
    result: The task's typed result; locations are in pixels of the picture.
    latency_ms: The duration of the inference, after warm-up; of a sound, the median of its windows.
    first_ms: The duration of the first inference after the model was opened, the same in all predictions.
    runtime: The engine's id.
    runtime_version: The engine's version.
    assumptions: Sentences about properties of the model that are not specified anywhere and were assumed.
    preprocess_ms: The duration of reading and preprocessing the input.
    decode_ms: The duration of decoding the outputs.
    picture: The picture's file, to draw on; None if the input is not a picture.
    outputs: The raw outputs by name.
    """

    input: str
    is_picture: bool
    task: str
    result: Result
    latency_ms: float
    first_ms: float
    runtime: str
    runtime_version: str
    assumptions: tuple[str, ...] = ()
    preprocess_ms: float = 0.0
    decode_ms: float = 0.0
    picture: Path | None = None
    outputs: Arrays = field(default_factory=dict)

    def draw(self) -> Image:
        """Draw the result on a copy of the picture, which is a `PIL.Image`.

        Raises UsageError if the input is not a picture, or if results of the task cannot be drawn.
        """
        if self.picture is None:
            raise UsageError(f"{self.input} is not a picture to draw on", "pass pictures")
        drawn: Image = task_view(self.task).draw(decode(self.picture), self.result)
        return drawn

    def to_json(self) -> JsonObject:
        """Return a row of `edge run --json`.

        "picture" and the keys of the task's view are kept for programs that rely on them.
        """
        return {
            **({"picture": self.input} if self.is_picture else {}),
            **task_view(self.task).row(self.result),
            "latency_ms": self.latency_ms,
            "preprocess_ms": self.preprocess_ms,
            "decode_ms": self.decode_ms,
            "first_ms": self.first_ms,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "assumptions": list(self.assumptions),
            "input": self.input,
            "task": self.task,
            "result": self.result.to_json(),
        }


@dataclass(frozen=True)
class Unreadable:
    """An input that could not be read, and why."""

    input: str
    error: InputError


def predict(
    model: PreparedModel, inputs: Sequence[Source], worker: Worker, engine: EngineChoice
) -> Iterator[Prediction | Unreadable]:
    """Yield predictions in the order of the inputs, with one job for up to 64 pictures, per sound, text or sample."""
    for read, group in groupby(inputs, _reader):
        if read is not None:
            for source in group:
                yield from read(model, source, worker, engine)
            continue
        paths = [source for source in group if isinstance(source, Path)]
        at_once = _at_once(model)
        for start in range(0, len(paths), at_once):
            yield from _from_pictures(model, paths[start : start + at_once], worker, engine)


def _reader(source: Source) -> Callable[..., Iterator[Prediction | Unreadable]] | None:
    """Return the function that predicts from one input of this kind; None for pictures, of which many make a job."""
    if is_array_file(source):
        return _from_arrays
    if is_text(source):
        return _from_text
    return _from_sound if is_sound_file(source) else None


def _at_once(model: PreparedModel) -> int:
    """Return how many pictures make a job: the larger they and their outputs are, the fewer.

    It is one if an output's size may differ between inputs, as in a detector that suppresses boxes itself.
    """
    manifest = model.artifact.manifest
    first = min(model.batch, 1)  # the first axis is the batch, if there is one
    if any(isinstance(size, str) for spec in manifest.outputs for size in spec.shape[first:]):
        return 1
    numbers = sum(math.prod(concrete_shape(spec)) for spec in (*manifest.inputs, *manifest.outputs))
    return max(1, min(_AT_ONCE, _JOB_NUMBERS // max(1, numbers)))


def _from_pictures(
    model: PreparedModel, paths: Sequence[Path], worker: Worker, engine: EngineChoice
) -> Iterator[Prediction | Unreadable]:
    read = [_readable(path, lambda path: read_picture_sample(model.artifact, path)) for path in paths]
    samples = [one for one in read if isinstance(one, Sample)]
    answers = iter(predict_samples(model, samples, worker, engine) if samples else [])
    for one in read:
        yield one if isinstance(one, Unreadable) else next(answers)


def _from_arrays(
    model: PreparedModel, path: Path, worker: Worker, engine: EngineChoice
) -> Iterator[Prediction | Unreadable]:
    samples = _readable(path, lambda path: list(read_array_samples(model.artifact, path)))
    if isinstance(samples, Unreadable):
        yield samples
        return
    for sample in samples:  # one by one, because with a free dimension each output may have another size
        yield from predict_samples(model, [sample], worker, engine)


def _from_text(
    model: PreparedModel, source: Source, worker: Worker, engine: EngineChoice
) -> Iterator[Prediction | Unreadable]:
    inputs = model.decoder.texts()
    if inputs is None:
        raise _refusal(model, "text")
    sample = _readable(source, lambda source: read_text_sample(model.artifact, source, inputs, model.max_tokens))
    if isinstance(sample, Unreadable):
        yield sample
        return
    yield from predict_samples(model, [sample], worker, engine)


def _refusal(model: PreparedModel, kind: str) -> UsageError:
    what = f"{model.artifact.model} is a model for {model.task.id}, as far as edge knows, and takes no {kind}"
    return UsageError(what, f"name its task with --task {kind}, or pass its inputs as an .npz")


def _from_sound(
    model: PreparedModel, path: Path, worker: Worker, engine: EngineChoice
) -> Iterator[Prediction | Unreadable]:
    """Yield the answer to a sound, which joins those to its windows."""
    windows = model.decoder.sounds()
    if windows is None:
        raise _refusal(model, "sound")
    samples = _readable(path, lambda path: read_sound_samples(model.artifact, path, windows))
    if isinstance(samples, Unreadable):
        yield samples
        return
    answers = predict_samples(model, samples, worker, engine, windows.states)
    yield replace(
        answers[0],
        result=join_windows([one.result for one in answers if isinstance(one.result, Sound)]),
        latency_ms=float(np.median([answer.latency_ms for answer in answers])),
        preprocess_ms=sum(answer.preprocess_ms for answer in answers),
        decode_ms=sum(answer.decode_ms for answer in answers),
        outputs={name: np.stack([answer.outputs[name] for answer in answers]) for name in answers[0].outputs},
    )


def _readable(source: S, read: Callable[[S], T]) -> T | Unreadable:
    try:
        return read(source)
    except InputError as error:
        return Unreadable(str(source), error)


def predict_samples(
    model: PreparedModel,
    samples: Sequence[Sample],
    worker: Worker,
    engine: EngineChoice,
    states: Mapping[str, str] | None = None,
) -> list[Prediction]:
    """Return the predictions for samples whose arrays have the same shapes, using one job.

    states: If given, the samples follow one another, as `RunJob` describes.
    """
    outputs, answer = _outputs(model, samples, worker, engine, states)
    specs = [spec for spec in model.artifact.manifest.outputs if spec.name not in (states or {}).values()]
    predictions = []
    for index, sample in enumerate(samples):
        single = named_outputs({name: array[index] for name, array in outputs.items()}, specs)
        read = {name: sample.feeds[name] for name in model.decoder.reads()}
        start = perf_counter()
        result = _decode(model, {**single, **read}, sample.source)
        decode_ms = (perf_counter() - start) * 1000
        predictions.append(
            Prediction(
                input=sample.source,
                is_picture=sample.placement is not None,
                task=model.task.id,
                result=result if sample.placement is None else result.in_picture(sample.placement),
                latency_ms=answer.latency_ms[index],
                first_ms=answer.first_ms,
                runtime=answer.runtime,
                runtime_version=answer.runtime_version,
                assumptions=model.assumptions,
                preprocess_ms=sample.preprocess_ms,
                decode_ms=decode_ms,
                picture=Path(sample.source) if sample.placement is not None else None,
                outputs=single,
            )
        )
    return predictions


def _decode(model: PreparedModel, outputs: Arrays, source: str) -> Result:
    """Decode the outputs of an input. Raises InputError, which names it, for outputs that can be no such result."""
    if model.batch > 1:
        outputs = {name: array[:1] if array.shape[:1] == (model.batch,) else array for name, array in outputs.items()}
    try:
        result: Result = model.task.decode(outputs, model.decoder)
    except InputError as error:
        raise InputError(f"{source}: {error.message}", error.hint) from None
    return result


def _outputs(
    model: PreparedModel,
    samples: Sequence[Sample],
    worker: Worker,
    engine: EngineChoice,
    states: Mapping[str, str] | None,
) -> tuple[Arrays, RunAnswer]:
    """Return the outputs of all samples, stacked, and the worker's answer."""
    with tempfile.TemporaryDirectory(prefix="edge-run-") as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        stacked = {name: np.stack([sample.feeds[name] for sample in samples]) for name in samples[0].feeds}
        np.savez(inputs, **stacked)  # type: ignore[arg-type] # numpy's stubs take a name for allow_pickle
        answer = engine.run_samples(model.artifact, inputs, outputs, worker, states)
        return load_arrays(outputs), answer
