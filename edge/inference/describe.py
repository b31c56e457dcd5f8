"""Describe what a model does, as far as it can be determined without running it."""

from __future__ import annotations

from typing import Any

from edge.inference.author_metadata import pictures_of
from edge.inference.facts import Specs, facts_of
from edge.inference.input_defaults import preprocess_of
from edge.inference.preprocessing import ModelHints
from edge.inspection import Inspection
from edge.inspection.report import TaskDescription
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import EdgeError
from runtimes.model_files.facts import MANIFEST, ModelFacts
from runtimes.task import Decoder, PictureDefaults, Task
from runtimes.tasks import recognize

_LANGUAGE_MODELS = "gguf"
_UNKNOWN = "tensors"


def describe(artifact: Artifact, found: Inspection, hints: ModelHints) -> TaskDescription | None:
    """Return the task of a model, its classes and its pictures; None for language models.

    What `edge run` would refuse, such as an unknown scaling of pixels, becomes one of the assumptions.
    Raises InputError and UsageError for hints that do not fit the model.
    """
    if artifact.manifest.format == _LANGUAGE_MODELS:
        return None
    facts = facts_of(artifact, found, hints, _nothing).for_one()
    try:
        task, decoder = recognize(facts)
    except EdgeError as error:
        if hints.task is not None or hints.labels is not None:
            raise
        return TaskDescription(id=_UNKNOWN, layout="", assumptions=(f"{error.message}: {error.hint}",))
    if task.id == _UNKNOWN:
        return TaskDescription(id=_UNKNOWN, layout=type(decoder).__name__)
    words = list[str]()
    picture = _picture(artifact, found, hints, facts, task, decoder, words)
    labels = None if facts.labels is None else decoder.labels or facts.labels.names
    origins = {name: facts.origins[name] for name in ("task", "labels") if name in facts.origins}
    if labels is None:
        origins.pop("labels", None)
    if "task" not in origins:
        origins["task"] = "operators and shapes"
    if picture is not None:
        origins["picture"] = _origin(artifact, found, hints)
    return TaskDescription(
        id=task.id,
        layout=type(decoder).__name__,
        labels=labels,
        picture=picture,
        sound=decoder.sounds(),
        origins=origins,
        assumptions=(*words, *decoder.assumptions),
    )


def _nothing() -> Specs:
    return (), ()


def _picture(
    artifact: Artifact,
    found: Inspection,
    hints: ModelHints,
    facts: ModelFacts,
    task: Task[Any],
    decoder: Decoder[Any],
    words: list[str],
) -> Preprocess | None:
    """Return how a picture becomes the input; None if the model takes none, or if that is not known."""
    if facts.picture is None:
        return None
    assumed = list[str]()
    usual = decoder.pictures() or PictureDefaults(task.resize)
    try:
        picture = preprocess_of(artifact, facts.picture, hints.preprocess_options, found, assumed, usual)
    except EdgeError as error:
        if hints.preprocess_options.anything:
            raise
        words.append(f"{error.message}: {error.hint}")
        return None
    words += assumed
    return picture


def _origin(artifact: Artifact, found: Inspection, hints: ModelHints) -> str:
    if hints.preprocess_options.anything:
        return "--preprocess"
    if artifact.manifest.preprocess is not None:
        return MANIFEST
    author = pictures_of(found.properties)
    is_stated = author.scale is not None or found.metadata.get("mean")
    return "the file's metadata" if is_stated else "operators and shapes"
