"""From a model file to a classifier of pictures, when no manifest says how pictures go in and what comes out.

What was given on the command line counts first, then what the file itself says (metadata, labels, quantisation).
What neither tells is either assumed, and then said aloud, or asked for: how float inputs are scaled is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge.bare_given import Given
from edge.bare_output import class_count, output_meaning
from edge.bare_pixels import preprocess_of
from edge.inspection import Inspection, inspect
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


@dataclass(frozen=True)
class Classifier:
    """A model and all that stands between a picture and its classes.

    The manifest of `artifact` has `inputs`, `outputs`, `preprocess` and `output` set; `labels` holds one name for
    each class of the first output. `assumptions` are sentences to be shown with every result.
    """

    artifact: Artifact
    labels: tuple[str, ...] | None
    assumptions: tuple[str, ...]


def classifier_of(artifact: Artifact, given: Given, describe: Callable[[], Specs]) -> Classifier:
    """Complete what the artifact's manifest leaves open.

    `describe` asks the engine for inputs and outputs; it is called only where the file does not tell them.
    UsageError, naming the options, for what must be given; InputError for a model that does not classify pictures.
    """
    manifest = artifact.manifest
    found = inspect(artifact) if manifest.preprocess is None or manifest.output is None else None
    inputs, outputs = _specs(artifact, found, describe)
    picture, assumptions = _picture_input(artifact, inputs), list[str]()
    classes = class_count(artifact, outputs)
    _check_quantization(artifact, picture, outputs[0])
    preprocess = preprocess_of(artifact, picture, given.said, found, assumptions)
    output, labels = output_meaning(artifact, outputs[0], given, found, classes, assumptions)
    complete = replace(manifest, inputs=inputs, outputs=outputs, preprocess=preprocess, output=output)
    return Classifier(replace(artifact, manifest=complete), labels, tuple(assumptions))


def _specs(artifact: Artifact, found: Inspection | None, describe: Callable[[], Specs]) -> Specs:
    manifest = artifact.manifest
    if manifest.inputs and manifest.outputs:
        return manifest.inputs, manifest.outputs
    if found is not None and found.inputs and found.outputs:
        return found.inputs, found.outputs
    return describe()


def _picture_input(artifact: Artifact, inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    if len(inputs) != 1:
        raise InputError(
            f"{artifact.model} takes {len(inputs)} inputs; a picture is one", "see them with `edge inspect`"
        )
    return inputs[0]


def _check_quantization(artifact: Artifact, *specs: TensorSpec) -> None:
    """One positive scale for the whole tensor: what the ends of a model have, and a broken file may not."""
    for spec in specs:
        found = spec.quantization
        if found is not None and not (len(found.scales) == 1 and 0 < found.scales[0] < float("inf")):
            raise InputError(f"{artifact.model}: the quantisation of '{spec.name}' is broken", "do not use this model")
