"""What the output of a model means that has no manifest: probabilities or logits, of which classes."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.bare_given import Given
from edge.inspection import Inspection
from runtimes.artifact import Artifact, OutputMeaning, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.session import format_shape

_IMAGENET = 1000
_BACKGROUND = "background"
_LARGEST_LABELS = 4 * 2**20
# TFLite writes a softmax or sigmoid of 8 bits always with this scale, from 0 (uint8) or −128 (int8) on.
_PROBABILITY_SCALE = 1 / 256
_LOWEST = {"uint8": 0, "int8": -128}


def class_count(artifact: Artifact, outputs: Sequence[TensorSpec]) -> int:
    """How many classes the first output has; InputError when it is no list of classes."""
    if not outputs:
        raise InputError(f"{artifact.model} has no output", "see it with `edge inspect`")
    shape = outputs[0].shape
    of_one_picture = [size for size in shape[1:] if size != 1]
    if len(of_one_picture) == 1 and isinstance(of_one_picture[0], int) and (shape[0] == 1 or isinstance(shape[0], str)):
        return of_one_picture[0]
    raise InputError(
        f"{artifact.model} does not classify: it answers {outputs[0].dtype}{format_shape(shape)}, "
        "not one value for each class",
        "see its outputs with `edge inspect`",
    )


def output_meaning(
    artifact: Artifact,
    spec: TensorSpec,
    given: Given,
    found: Inspection | None,
    classes: int,
    assumptions: list[str],
) -> tuple[OutputMeaning, tuple[str, ...] | None]:
    """What the numbers are, and the classes' names; what was assumed is added to the list."""
    stated = artifact.manifest.output
    if stated is not None:
        kind, offset = given.output or stated.kind, stated.label_offset
        labels = _read_labels(given.labels, classes) if given.labels else _own_labels(artifact)
    else:
        kind = given.output or _kind(artifact, spec, found, assumptions)
        labels = _labels(given, found, classes, assumptions)
        offset = _offset(labels, classes)
    offset = offset if given.label_offset is None else given.label_offset
    return OutputMeaning(kind, offset, stated.labels if stated else None), labels


def _own_labels(artifact: Artifact) -> tuple[str, ...] | None:
    labels = artifact.labels()
    return tuple(labels) if labels is not None else None


def _kind(artifact: Artifact, spec: TensorSpec, found: Inspection | None, assumptions: list[str]) -> str:
    operator = (found.output_op if found else None) or ""
    word = operator.lower().replace("_", "")
    if any(known in word for known in ("softmax", "sigmoid", "logistic")) and "log" not in word.replace("logistic", ""):
        assumptions.append(f"the output is probabilities: {operator} makes it (--output)")
        return "probability"
    if _has_probability_scale(spec):
        assumptions.append("the output is probabilities: its scale is 1/256, a softmax's (--output)")
        return "probability"
    if not operator:
        raise UsageError(
            f"{artifact.model} does not show what makes its output", "give --output probability or --output logit"
        )
    assumptions.append(f"the output is logits: {operator} makes it (--output)")
    return "logit"


def _has_probability_scale(spec: TensorSpec) -> bool:
    found = spec.quantization
    return (
        found is not None and found.scales[0] == _PROBABILITY_SCALE and found.zero_points[0] == _LOWEST.get(spec.dtype)
    )


def _labels(given: Given, found: Inspection | None, classes: int, assumptions: list[str]) -> tuple[str, ...] | None:
    if given.labels is not None:
        return _read_labels(given.labels, classes)
    embedded = found and (found.labels or _onnx_names(found.metadata.get("properties", {})))
    if embedded and len(embedded) == classes:
        return tuple(embedded)
    if classes in (_IMAGENET, _IMAGENET + 1):
        assumptions.append(f"the {classes} classes are ImageNet's (--labels)")
        return _imagenet(classes)
    assumptions.append(f"the {classes} classes have no names (--labels)")
    return None


def _offset(labels: tuple[str, ...] | None, classes: int) -> int:
    has_background = labels is not None and labels[0].lower() == _BACKGROUND
    return 1 if has_background or (labels is None and classes == _IMAGENET + 1) else 0


def _imagenet(classes: int) -> tuple[str, ...]:
    from converters import mobilenet_v2

    names = Path(mobilenet_v2.__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    return (_BACKGROUND,) * (classes - len(names)) + tuple(names)


def _onnx_names(properties: dict[str, str]) -> tuple[str, ...]:
    """Ultralytics writes its classes as the text of a Python dictionary: {0: 'tench', 1: 'goldfish'}."""
    text = properties.get("names", "")
    try:
        names: Any = ast.literal_eval(text) if 0 < len(text) <= _LARGEST_LABELS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    values = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    return tuple(str(value) for value in values)


def _read_labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_LABELS + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read as labels: {error.strerror}", "check the path") from None
    if len(text) > _LARGEST_LABELS:
        raise InputError(f"{path} is larger than any list of labels", "give a text file with one label a line")
    labels = text.decode("utf-8", "replace").splitlines()
    if len(labels) == _IMAGENET and classes == _IMAGENET + 1:
        labels.insert(0, _BACKGROUND)
    if len(labels) != classes:
        raise InputError(
            f"{path} holds {len(labels)} labels; the model has {classes} classes", "give one label a line, in order"
        )
    return tuple(label.strip() for label in labels)
