"""Determine what a source does, so that the artifact's manifest states it even if the converted file no longer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converters.sources.source import OpenedSource
from edge.conversion.datasets import ConversionInputs
from edge.inference.describe import describe
from edge.inference.facts import inspected
from edge.inference.preprocessing import ModelHints
from edge.inspection.report import TaskDescription
from runtimes.artifact import Preprocess, TaskStatement
from runtimes.artifact.json_fields import JsonValue

# Properties that decoders read, see `runtimes.decoders`; others may reveal more about the author's machine than the
# model.
_DECODED = ("head", "kpt_shape", "end2end", "architecture")
# Their manifests have `output`, or state nothing.
_DESCRIBED_OTHERWISE = ("classification", "tensors")


@dataclass(frozen=True, kw_only=True)
class StatedTask:
    """What a source does.

    statement: For the manifest.
    picture: How a picture becomes the input; None if that is not known.
    notes: For the user: the task, where it was read, and what was assumed.
    """

    statement: TaskStatement
    picture: Preprocess | None
    notes: tuple[str, ...]


def stated_task(source: OpenedSource, inputs: ConversionInputs) -> StatedTask | None:
    """Return what a source does, and how it takes pictures; None for a classifier, and if it is not known.

    Raises InputError and UsageError for options that do not fit the model.
    """
    artifact = source.artifact
    found = inspected(artifact) if artifact.model.exists() else None
    if found is None:
        return None
    first = describe(artifact, found, ModelHints(task=inputs.task))
    if first is None or first.id in _DESCRIBED_OTHERWISE:
        return None
    hints = ModelHints(inputs.preprocess_options, labels=inputs.labels, task=inputs.task)
    task = describe(artifact, found, hints) or first
    metadata = {**_texts(found.properties), **_texts(found.metadata)}
    if artifact.manifest.task is not None:
        metadata.update(artifact.manifest.task.metadata)
    return StatedTask(
        statement=TaskStatement(task.id, task.labels, metadata),
        picture=task.picture,
        notes=(_line(task), *(f"assumed: {line}" for line in task.assumptions)),
    )


def _line(task: TaskDescription) -> str:
    count = len(task.labels or ())
    classes = f", {count} class{'es' if count > 1 else ''}" if count else ""
    return f"the manifest says {task.id}{classes} (from {task.origins.get('task', 'operators and shapes')})"


def _texts(properties: Mapping[str, JsonValue]) -> dict[str, str]:
    return {key: str(properties[key]) for key in _DECODED if key in properties}
