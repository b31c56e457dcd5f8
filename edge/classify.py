"""Pictures through a classifier: decoded here, run in a worker process, answered with names."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bare import Classifier, Specs, classifier_of
from edge.bare_given import Given
from edge.pictures import load_pixels
from edge.workers import Worker
from runtimes.arrays import Array, load_arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError
from runtimes.fields import Fields
from runtimes.tensors import pixels_to_input, probabilities, raw_score, top_classes

_AT_ONCE = 64  # pictures for each job: 40 MB of float inputs at 224 × 224


@dataclass(frozen=True)
class Engine:
    """How to run: the engine's id and threads, None for the usual ones; seconds that one job may take.

    `note` hears what the engine is at where that takes long, such as building.
    """

    runtime: str | None = None
    threads: int | None = None
    timeout_s: float | None = 600.0
    note: Callable[[str], None] = lambda _: None

    def job(self, name: str, artifact: Artifact) -> dict[str, Any]:
        """A worker's job about an artifact."""
        path = artifact.model if artifact.is_bare else artifact.path
        return {"job": name, "artifact": str(path), "runtime": self.runtime, "options": {"threads": self.threads}}

    def run(self, job: Mapping[str, Any], worker: Worker) -> dict[str, Any]:
        """The worker's answer to a job; raises as `Worker.run` does."""

        def hear(progress: Mapping[str, Any]) -> None:
            if "phase" in progress:
                self.note(str(progress["phase"]))

        return worker.run(job, timeout_s=self.timeout_s, on_progress=hear)


@dataclass(frozen=True)
class Answer:
    """One picture's classes, likeliest first; `raw` is the top of the output as it comes.

    `latency_ms` is of a model that is warm; `first_ms` is its first inference ever, the same in every answer.
    """

    picture: Path
    top: Sequence[Mapping[str, Any]]
    raw: float
    latency_ms: float
    first_ms: float
    runtime: str
    runtime_version: str


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and why."""

    picture: Path
    error: InputError


def prepare(artifact: Artifact, given: Given, worker: Worker, engine: Engine) -> Classifier:
    """A classifier from an artifact or bare file; raises as `classifier_of` does, and what the engine raises."""

    def describe() -> Specs:
        answer = Fields(engine.run(engine.job("describe", artifact), worker), "the worker's answer")
        specs = [tuple(TensorSpec.read(one) for one in answer.children(key)) for key in ("inputs", "outputs")]
        return specs[0], specs[1]

    return classifier_of(artifact, given, describe)


def classify(
    classifier: Classifier, pictures: Sequence[Path], worker: Worker, engine: Engine, count: int = 5
) -> Iterator[Answer | Unreadable]:
    """Answers in the order of the pictures, `count` classes each; one job for every 64 of them."""
    for start in range(0, len(pictures), _AT_ONCE):
        yield from _batch(classifier, pictures[start : start + _AT_ONCE], worker, engine, count)


def _batch(
    classifier: Classifier, pictures: Sequence[Path], worker: Worker, engine: Engine, count: int
) -> Iterator[Answer | Unreadable]:
    decoded = [_decoded(classifier, picture) for picture in pictures]
    inputs = [one for one in decoded if not isinstance(one, Unreadable)]
    outputs, facts = _outputs(classifier, inputs, worker, engine) if inputs else (np.empty(0), {})
    done = 0
    for picture, one in zip(pictures, decoded, strict=True):
        if isinstance(one, Unreadable):
            yield one
        else:
            yield _answer(classifier, picture, outputs[done], facts, facts["latency_ms"][done], count)
            done += 1


def _decoded(classifier: Classifier, picture: Path) -> Array | Unreadable:
    manifest = classifier.artifact.manifest
    assert manifest.preprocess is not None
    try:
        return pixels_to_input(load_pixels(picture, manifest.preprocess), manifest.inputs[0], manifest.preprocess)
    except InputError as error:
        return Unreadable(picture, error)


def _outputs(
    classifier: Classifier, inputs: Sequence[Array], worker: Worker, engine: Engine
) -> tuple[Array, Mapping[str, Any]]:
    """The first output for each input, stacked, and the worker's answer."""
    artifact = classifier.artifact
    spec = artifact.manifest.outputs[0]
    with tempfile.TemporaryDirectory(prefix="edge-run-") as folder:
        given, written = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(given, **{artifact.manifest.inputs[0].name: np.stack(inputs)})  # type: ignore[arg-type] # allow_pickle
        job = {**engine.job("run", artifact), "inputs": str(given), "outputs": str(written)}
        facts = engine.run(job, worker)
        outputs = load_arrays(written)
    # Engines name the same tensor differently; where the name is not known, the first output is meant.
    return outputs.get(spec.name, next(iter(outputs.values()))), facts


def _answer(
    classifier: Classifier, picture: Path, output: Array, facts: Mapping[str, Any], latency_ms: float, count: int
) -> Answer:
    manifest = classifier.artifact.manifest
    assert manifest.output is not None
    spec = manifest.outputs[0]
    top = top_classes(probabilities(output, spec, manifest.output), manifest.output, classifier.labels, count)
    times, made_by = (latency_ms, facts["first_ms"]), (facts["runtime"], facts["runtime_version"])
    return Answer(picture, top, raw_score(output, spec), *times, *made_by)
