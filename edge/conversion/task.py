"""Determine what a source does, so that the artifact's manifest states it even if the converted file no longer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.sources.source import OpenedSource
from edge.conversion.datasets import ConversionInputs
from edge.inference.describe import describe
from edge.inference.facts import Specs, facts_of, inspect_file
from edge.inference.preprocessing import ModelHints
from edge.inference.texts import MAX_TOKENS_KEY, tokenizer_beside
from edge.inspection.report import TaskDescription
from runtimes.artifact import MANIFEST, Artifact, Preprocess, TaskStatement
from runtimes.artifact.json_fields import JsonObject, JsonValue, to_json
from runtimes.artifact.self_check import RowScores
from runtimes.errors import EdgeError
from runtimes.task import Decoder
from runtimes.tasks import recognize
from runtimes.tasks.classification import ClassScores
from runtimes.tasks.embedding import NORMALIZED, POOLING
from runtimes.tasks.sound import RATE_KEY

# Properties that decoders read, see `runtimes.decoders`; others may reveal more about the author's machine than the
# model.
_DECODED = ("head", "kpt_shape", "end2end", "architecture", RATE_KEY, POOLING, NORMALIZED, MAX_TOKENS_KEY)
_OF_TEXTS = ("text", "embedding")
# Their manifests have `output`, or state nothing.
_DESCRIBED_OTHERWISE = ("classification", "tensors")


@dataclass(frozen=True, kw_only=True)
class StatedTask:
    """What a source does.

    statement: For the manifest.
    picture: How a picture becomes the input; None if that is not known.
    notes: For the user: the task, where it was read, and what was assumed.
    tokenizer: The file that makes token ids of texts, to pack with the artifact.
    """

    statement: TaskStatement
    picture: Preprocess | None
    notes: tuple[str, ...]
    tokenizer: Path | None = None


def stated_task(source: OpenedSource, inputs: ConversionInputs, folder: Path | None = None) -> StatedTask | None:
    """Return what a source does, and how it takes pictures; None for a classifier, and if it is not known.

    folder: The folder that the source was exported from, which says what models of texts do.

    Raises InputError and UsageError for options that do not fit the model.
    """
    artifact = source.artifact
    found = inspect_file(artifact, folder) if artifact.model.exists() else None
    if found is None:
        return None
    first = describe(artifact, found, ModelHints(task=inputs.task, rate=inputs.rate))
    if first is None or first.id in _DESCRIBED_OTHERWISE or (folder is not None and first.id not in _OF_TEXTS):
        return None
    hints = ModelHints(
        preprocess_options=inputs.preprocess_options, labels=inputs.labels, task=inputs.task, rate=inputs.rate
    )
    task = describe(artifact, found, hints) or first
    metadata = {**_texts(found.properties), **_texts(found.metadata)}
    if artifact.manifest.task is not None:
        metadata.update(artifact.manifest.task.metadata)
    if inputs.rate is not None:
        metadata[RATE_KEY] = str(inputs.rate)
    return StatedTask(
        statement=TaskStatement(task.id, task.labels, metadata),
        picture=task.picture,
        notes=(_line(task), *(f"assumed: {line}" for line in task.assumptions)),
        tokenizer=tokenizer_beside(folder or artifact.path) if task.id in _OF_TEXTS else None,
    )


def kind_in_file(source: OpenedSource, inputs: ConversionInputs) -> str | None:
    """Return "probability" or "logit" if the file shows which of them a classifier computes; None if it does not."""
    decoder = _decoder_of(source, ModelHints(labels=inputs.labels))
    return decoder.meaning.kind if isinstance(decoder, ClassScores) else None


def find_row_scores(source: OpenedSource, inputs: ConversionInputs) -> RowScores | None:
    """Return the scores by which the source's decoder reads rows of its outputs; None if it reads all of them."""
    decoder = _decoder_of(source, ModelHints(task=inputs.task))
    return decoder.row_scores() if decoder is not None else None


def _decoder_of(source: OpenedSource, hints: ModelHints) -> Decoder[Any] | None:
    artifact = source.artifact
    found = inspect_file(artifact) if artifact.model.exists() else None
    if found is None:
        return None
    try:
        return recognize(facts_of(artifact, found, hints, _no_specs))[1]
    except EdgeError:  # such as labels that do not fit, which the conversion refuses with the outputs of the engine
        return None


def describe_to_page(folder: Path) -> None:
    """Add to the manifest of an artifact for the browser what its page, which inspects no model file, has to know.

    The outputs of the file where the conversion split some, and the decoder of the outputs where the task is known.
    """
    artifact = Artifact.open(folder)
    manifest = artifact.manifest
    page = manifest.conversion.get("browser")
    if not isinstance(page, Mapping) or (manifest.task is None and not manifest.join):
        return
    found = inspect_file(artifact)
    added: JsonObject = {}
    if manifest.join and found is not None:
        added["outputs"] = [to_json(spec) for spec in found.outputs]
    if manifest.task is not None:
        task, decoder = recognize(facts_of(artifact, found, ModelHints(), lambda: (manifest.inputs, manifest.outputs)))
        if task.id not in _DESCRIBED_OTHERWISE:
            added["decoder"] = decoder_for_page(task.id, decoder)
    conversion = {**manifest.conversion, "browser": {**page, **added}}
    (folder / MANIFEST).write_text(replace(manifest, conversion=conversion).to_json(), encoding="utf-8")


def decoder_for_page(task: str, decoder: Decoder[Any]) -> JsonObject:
    """Return a decoder as its counterpart in `converters/browser/page/` takes it: the layout, and its parameters."""
    parameters = {name: value for name, value in to_json(decoder).items() if name != "assumptions"}
    return {"task": task, "layout": type(decoder).__name__, **parameters}


def _no_specs() -> Specs:
    return (), ()


def _line(task: TaskDescription) -> str:
    count = len(task.labels or ())
    classes = f", {count} class{'es' if count > 1 else ''}" if count else ""
    return f"the manifest says {task.id}{classes} (from {task.origins.get('task', 'operators and shapes')})"


def _texts(properties: Mapping[str, JsonValue]) -> dict[str, str]:
    return {key: str(properties[key]) for key in _DECODED if key in properties}
