"""Collect what is known about a model, from the user's options, else its manifest, else the file itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converters.pytorch.hugging_face_config import CONFIG
from edge.inference.author_metadata import author_labels, task_of
from edge.inference.hugging_face_folder import ARCHITECTURE, LABELS_FILE, task_of_architecture, with_folder
from edge.inference.preprocessing import ModelHints
from edge.inspection import Inspection, inspect
from runtimes.artifact import Artifact, TensorSpec
from runtimes.artifact.labels import read_labels
from runtimes.errors import UsageError
from runtimes.model_files.facts import ASSUMED, GIVEN, TASK_OPTION, Labels, ModelFacts, facts_of_artifact
from runtimes.tasks.classification import class_count
from runtimes.tasks.embedding import POOLING
from runtimes.tasks.sound import RATE_KEY

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
_FILE = "the model file"
_IMAGENET, _BACKGROUND = 1000, "background"
# The 1,000 classes in the order of their indices, as in google-coral/test_data (Apache-2.0).
_NAMES = Path(__file__).with_name("imagenet_labels.txt")


def facts_of(
    artifact: Artifact, found: Inspection | None, hints: ModelHints, describe: Callable[[], Specs]
) -> ModelFacts:
    """Collect what is known about a model.

    artifact: The model and its manifest.
    found: The result of inspecting its file; None if the format cannot be inspected.
    hints: The user's options.
    describe: Asks the engine for inputs and outputs; called only if neither the manifest nor the file has them.

    Raises InputError if the user's labels cannot be read.
    """
    facts = facts_of_artifact(artifact)
    if found is not None:
        facts = _with_file(facts, found)
    if not (facts.inputs and facts.outputs):
        inputs, outputs = describe()
        facts = _with_origin("the engine", replace(facts, inputs=inputs, outputs=outputs), "inputs", "outputs")
    return _with_labels(_with_hints(facts, hints), artifact, found, hints)


def inspect_file(artifact: Artifact, folder: Path | None = None) -> Inspection | None:
    """Inspect the model file; None for formats that only an engine can read. Raises InputError for a broken file.

    folder: The Hugging Face folder that it was exported from, if it does not stand there.
    """
    try:
        return with_folder(inspect(artifact), artifact.model, folder)
    except UsageError:
        return None


def _with_origin(origin: str, facts: ModelFacts, *names: str) -> ModelFacts:
    """Record `origin` as the source of the named facts."""
    return replace(facts, origins={**facts.origins, **dict.fromkeys(names, origin)})


def _with_file(facts: ModelFacts, found: Inspection) -> ModelFacts:
    label_file = found.metadata.get("label_file")
    facts = replace(
        facts,
        operators=dict(found.ops),
        output_operator=found.output_op,
        producers=found.producers if found.outputs else (),
        metadata={**_properties(found), **facts.metadata},
        label_files={str(label_file): tuple(found.labels)} if label_file and found.labels else {},
    )
    facts = _with_origin(_FILE, facts, "operators", "output_operator", "producers", "metadata", "label_files")
    stated = ((task_of(found.properties), "the property 'task'"), (_architecture_task(found), CONFIG))
    task, origin = next(((task, origin) for task, origin in stated if task is not None), (None, ""))
    if task is not None and facts.task is None:
        facts = _with_origin(origin, replace(facts, task=task), "task")
    if (facts.inputs and facts.outputs) or not (found.inputs and found.outputs):
        return facts
    return _with_origin(_FILE, replace(facts, inputs=found.inputs, outputs=found.outputs), "inputs", "outputs")


def _architecture_task(found: Inspection) -> str | None:
    if POOLING in found.metadata:
        return "embedding"
    return task_of_architecture(str(found.metadata.get(ARCHITECTURE, "")))


def _properties(found: Inspection) -> dict[str, str]:
    """Merge metadata and properties into one flat mapping."""
    single = {key: str(value) for key, value in found.metadata.items() if isinstance(value, str | int | float)}
    return {**single, **found.properties}


def _with_hints(facts: ModelFacts, hints: ModelHints) -> ModelFacts:
    if hints.task is not None:
        facts = _with_origin(TASK_OPTION, replace(facts, task=hints.task), "task")
    if hints.rate is not None:
        facts = _with_origin("--rate", replace(facts, metadata={**facts.metadata, RATE_KEY: str(hints.rate)}), RATE_KEY)
    if hints.output is not None:
        facts = _with_origin("--output", replace(facts, output_kind=hints.output), "output_kind")
    if hints.label_offset is not None:
        facts = _with_origin("--label-offset", replace(facts, label_offset=hints.label_offset), "label_offset")
    return facts


def _with_labels(facts: ModelFacts, artifact: Artifact, found: Inspection | None, hints: ModelHints) -> ModelFacts:
    """Set the labels: the user's, else the manifest's, else the file's, else those that the number of classes suggests.

    A manifest that describes the output without labels means that the model has none.
    """
    if hints.labels is not None:
        return _with_origin("--labels", replace(facts, labels=read_given_labels(hints.labels)), "labels")
    if facts.labels is not None or artifact.manifest.output is not None or artifact.manifest.task is not None:
        return facts
    classes, embedded = class_count(facts.for_one()), labels_in(found) if found else None
    if embedded is not None and classes is not None and len(embedded.names) != classes and facts.task is None:
        embedded = None
    labels = embedded or (imagenet_labels(classes) if classes is not None else None)
    return facts if labels is None else _with_origin(labels.origin, replace(facts, labels=labels), "labels")


def read_given_labels(path: Path) -> Labels:
    """Read the user's labels file. Raises InputError if it cannot be read or is not a list of labels."""
    return Labels(tuple(read_labels(path, errors="replace")), str(path), GIVEN)


def labels_in(found: Inspection) -> Labels | None:
    """Return the class names stored in the model file."""
    if found.labels:
        return Labels(tuple(found.labels), str(found.metadata.get(LABELS_FILE, "the file's metadata")))
    return author_labels(found.properties)


def imagenet_labels(classes: int) -> Labels | None:
    """Return ImageNet's names if the number of classes suggests ImageNet; None for any other number."""
    if classes not in (_IMAGENET, _IMAGENET + 1):
        return None
    names = class_names()
    return Labels((_BACKGROUND,) * (classes - len(names)) + tuple(names), "ImageNet's", ASSUMED)


def class_names() -> list[str]:
    """Return ImageNet's 1,000 class names, without a background class."""
    return _NAMES.read_text(encoding="utf-8").splitlines()
