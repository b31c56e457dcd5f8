"""Prepare a model for predictions: determine its task, the preprocessing of inputs, and the decoding of outputs.

Options on the command line take precedence over the file's own metadata, labels and quantization. What neither
specifies is assumed and reported, or an error: the scaling of float inputs is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.inference.facts import Specs, facts_of, inspect_file
from edge.inference.input_defaults import preprocess_of
from edge.inference.preprocessing import ModelHints
from edge.inference.texts import MAX_TOKENS_KEY
from edge.workers.process import Worker
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.jobs import DescribeJob, Description, EngineOptions, Job, Progress, R, RunAnswer, RunJob
from runtimes.model_files.facts import ModelFacts
from runtimes.shapes import with_shapes
from runtimes.task import DecodeOptions, Decoder, PictureDefaults, Task
from runtimes.tasks import recognize


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The engine to use, and its limits.

    runtime: The engine's id; None selects the preferred engine of the format.
    threads: The number of threads; None leaves the choice to the engine.
    timeout_s: The time limit of one job, in seconds.
    note: Called with a text when the engine starts a long operation, such as building.
    """

    runtime: str | None = None
    threads: int | None = None
    timeout_s: float | None = 600.0
    note: Callable[[str], None] = lambda _: None

    @property
    def options(self) -> EngineOptions:
        """The options of a worker's job."""
        return EngineOptions(self.threads)

    def describe(self, artifact: Artifact, worker: Worker) -> Description:
        """Describe an artifact with the engine. Raises the errors of `Worker.run`."""
        return self.run(DescribeJob(_path(artifact), self.runtime, self.options), worker)

    def run_samples(
        self,
        artifact: Artifact,
        inputs: Path,
        outputs: Path,
        worker: Worker,
        states: Mapping[str, str] | None = None,
    ) -> RunAnswer:
        """Run the stacked samples in the file `inputs` and write `outputs`. Raises the errors of `Worker.run`.

        states: If given, the samples follow one another, as `RunJob` describes.
        """
        files = _path(artifact), str(inputs), str(outputs)
        return self.run(
            RunJob(*files, self.runtime, self.options, sequence=states is not None, states=states or {}), worker
        )

    def run(self, job: Job[R], worker: Worker) -> R:
        """Run a job in the worker and return its answer. Raises the errors of `Worker.run`."""

        def on_message(progress: Progress) -> None:
            if "phase" in progress:
                self.note(str(progress["phase"]))

        return worker.run(job, timeout_s=self.timeout_s, on_progress=on_message)


def _path(artifact: Artifact) -> str:
    return str(artifact.model if artifact.is_bare else artifact.path)


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model with everything needed to turn an input into the result of a task.

    artifact: The model; its manifest has `inputs` and `outputs`, and `preprocess` if it takes pictures.
    task: The model's task.
    decoder: Decodes its outputs.
    assumptions: Sentences to show with every result.
    max_tokens: The tokens of the longest text; None if it is not known.
    batch: How many pictures the model takes at once, as in `ModelFacts`: it is given copies of one, and the first
        answer counts.
    """

    artifact: Artifact
    task: Task[Any]
    decoder: Decoder[Any]
    assumptions: tuple[str, ...]
    max_tokens: int | None = None
    batch: int = 1


def prepare(
    artifact: Artifact,
    hints: ModelHints,
    worker: Worker,
    engine: EngineChoice,
    *,
    takes_pictures: bool = True,
    options: DecodeOptions | None = None,
    shapes: Sequence[str] = (),
) -> PreparedModel:
    """Prepare an artifact or bare model file. Raises the errors of `complete_model` and of the engine."""

    def describe() -> Specs:
        answer = engine.describe(artifact, worker)
        return tuple(answer.inputs), tuple(answer.outputs)

    return complete_model(artifact, hints, describe, takes_pictures=takes_pictures, options=options, shapes=shapes)


def complete_model(
    artifact: Artifact,
    hints: ModelHints,
    describe: Callable[[], Specs],
    *,
    takes_pictures: bool = True,
    options: DecodeOptions | None = None,
    shapes: Sequence[str] = (),
) -> PreparedModel:
    """Complete what the artifact's manifest does not specify.

    describe: Asks the engine for inputs and outputs; called only if the file does not contain them.
    takes_pictures: Whether the inputs will be pictures, whose preprocessing must then be known.
    shapes: Sizes for free axes, see `runtimes.shapes`.

    Raises UsageError, naming the options, if the user must specify more, and InputError if `takes_pictures` is set and
    the model does not take pictures.
    """
    manifest = artifact.manifest
    is_complete = manifest.output is not None and (manifest.preprocess is not None or not takes_pictures)
    found = None if is_complete else inspect_file(artifact)
    facts = facts_of(artifact, found, hints, describe)
    facts = replace(facts, inputs=with_shapes(facts.inputs, shapes))
    assumptions = list[str]()
    if takes_pictures:
        _check_picture_input(artifact, facts)
    single = facts.for_one()
    task, decoder = recognize(single)
    preprocess = manifest.preprocess
    if takes_pictures:
        requested = hints.preprocess_options
        usual = decoder.pictures() or PictureDefaults(task.resize)
        spec = single.picture or single.inputs[0]
        preprocess = preprocess_of(artifact, spec, requested, found, assumptions, usual)
    complete = replace(manifest, inputs=facts.inputs, outputs=facts.outputs, preprocess=preprocess)
    return PreparedModel(
        artifact=replace(artifact, manifest=complete),
        task=task,
        decoder=decoder.configured(options or DecodeOptions()),
        assumptions=(*assumptions, *decoder.assumptions),
        max_tokens=int(limit) if (limit := facts.metadata.get(MAX_TOKENS_KEY, "")).isdecimal() else None,
        batch=facts.batch,
    )


def _check_picture_input(artifact: Artifact, facts: ModelFacts) -> None:
    """Raise InputError if the inputs are not one picture and states, or if the quantization is invalid."""
    unfilled = [spec for spec in facts.inputs if spec is not facts.picture and spec.name not in facts.states]
    if len(facts.inputs) != 1 and (facts.picture is None or unfilled):
        raise InputError(
            f"{artifact.model} takes {len(facts.inputs)} inputs; a picture is one",
            "pass them as an .npz; `edge inspect` lists them",
        )
    for spec in facts.inputs:
        found = spec.quantization
        if found is not None and not (len(found.scales) == 1 and 0 < found.scales[0] < float("inf")):
            raise InputError(f"{artifact.model}: the quantization of '{spec.name}' is invalid", "do not use this model")
