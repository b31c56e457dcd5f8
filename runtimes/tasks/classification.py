"""Classification: one probability for each class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonValue, to_json
from runtimes.artifact.manifest import OutputMeaning, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import ASSUMED, GIVEN, MANIFEST, ModelFacts, label_count_error
from runtimes.session import format_shape
from runtimes.task import Agreement, DecodeOptions, Decoder, Result, Task
from runtimes.tensors import dequantize, softmax

_IMAGENET = 1000
_BACKGROUND = "background"
# TFLite always quantizes an 8-bit softmax or sigmoid with this scale, starting at 0 (uint8) or −128 (int8).
_PROBABILITY_SCALE = 1 / 256
_LOWEST = {"uint8": 0, "int8": -128}
# Classes whose probabilities are closer than this count as tied: 8 bits and a softmax may swap them.
_TIE = 0.05


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability. `index` counts real classes (ImageNet's 0…999); the background is −1."""

    index: int
    label: str | None
    probability: float


@dataclass(frozen=True)
class Classification(Result):
    """Classes, most likely first; `raw` is the maximum of the dequantized output."""

    classes: tuple[ClassScore, ...]
    raw: float

    def to_json(self) -> JsonValue:
        """Return [{"index", "label", "probability"}], most likely first."""
        return [to_json(one) for one in self.classes]


@dataclass(frozen=True)
class ClassScores(Decoder[Classification]):
    """Decodes a first output with one number per class.

    output: The output's spec.
    meaning: Probability or logit, and whether the first class is the background.
    labels: The class names.
    count: The number of classes in a result.
    """

    output: TensorSpec
    meaning: OutputMeaning
    labels: tuple[str, ...] | None = None
    count: int = 5
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> ClassScores | None:
        """Accept a model whose first output is a vector that some fact identifies as classes."""
        classes = class_count(model)
        if classes is None:
            _check_nothing_stated(model)
            return None
        if not _are_classes(model, classes):
            return None
        spec = model.outputs[0]
        if spec.quantization is not None and not _is_usable(spec):
            raise InputError(f"{model.source}: the quantization of '{spec.name}' is broken", "do not use this model")
        kind, how = _kind(model)
        labels, whose = _labels(model, classes)
        offset = default_label_offset(labels, classes) if model.label_offset is None else model.label_offset
        return cls(spec, OutputMeaning(kind, offset), labels, assumptions=how + whose)

    def class_names(self) -> Mapping[int, str | None]:
        """Return the names by index; the background is −1."""
        rows = range(_count_of(self.output) or len(self.labels or ()))
        return {place - self.meaning.label_offset: self._label(place) for place in rows}

    def configured(self, options: DecodeOptions) -> ClassScores:
        """Return a copy with the requested number of classes."""
        return replace(self, count=options.top)

    def decode(self, outputs: Mapping[str, Array]) -> Classification:
        """Return the most likely classes; ties go to the lower index.

        Raises InputError if the output is not one finite number per class.
        """
        real = dequantize(outputs[self.output.name], self.output.quantization).reshape(-1)
        classes = _count_of(self.output)
        if classes is not None and real.size != classes:
            raise InputError(
                f"'{self.output.name}' holds {real.size} numbers; one input gives {classes}", "give one input at a time"
            )
        if not np.isfinite(real).all():
            raise InputError(f"the model computed NaN or infinity in '{self.output.name}'", "check the input's values")
        shares = softmax(real) if self.meaning.kind == "logit" else real
        order = np.argsort(-shares, kind="stable")[: self.count]
        return Classification(tuple(self._score(int(i), float(shares[i])) for i in order), float(real.max()))

    def _score(self, place: int, share: float) -> ClassScore:
        return ClassScore(place - self.meaning.label_offset, self._label(place), share)

    def _label(self, place: int) -> str | None:
        if self.labels is not None and place < len(self.labels):
            return self.labels[place]
        return _BACKGROUND if place < self.meaning.label_offset else None


class ClassificationTask(Task[Classification]):
    """Returns the most likely classes of a picture or another input."""

    id: ClassVar[str] = "classification"
    rank: ClassVar[int] = 50  # after tasks that also output scores but are more specific
    resize: ClassVar[str] = "shorter_side"
    decoders = (ClassScores,)

    def compare(self, expected: Classification, actual: Classification) -> Agreement:
        """Results agree if their top class is the same or tied; the metrics cover the classes that both list."""
        wanted, found = ({one.index: one.probability for one in result.classes} for result in (expected, actual))
        first, second = expected.classes[0], actual.classes[0]
        same = first.index == second.index
        is_tie = second.index in wanted and first.probability - wanted[second.index] < _TIE
        shared = set(wanted) & set(found)
        largest = max((abs(wanted[index] - found[index]) for index in shared), default=1.0)
        metrics = {
            "top1_equal": float(same),
            "top_shared": len(shared) / len(wanted),
            "probability_difference": largest,
        }
        words = f"{_name(first)} at {first.probability:.4f}, and here {_name(second)} at {second.probability:.4f}"
        return Agreement(same or is_tie, metrics, words)


def class_count(model: ModelFacts) -> int | None:
    """Return the number of classes of the first output; None if it is not a vector for one input."""
    return _count_of(model.outputs[0]) if model.outputs else None


def _count_of(spec: TensorSpec) -> int | None:
    shape = spec.shape
    lists = [size for size in shape[1:] if size != 1]
    if len(lists) == 1 and isinstance(lists[0], int) and (shape[0] == 1 or isinstance(shape[0], str)):
        return lists[0]
    return None


def _check_nothing_stated(model: ModelFacts) -> None:
    """Raise InputError if the manifest or the user declares classes, but the output's shape contradicts it."""
    is_given = model.labels is not None and model.labels.certainty == GIVEN
    if model.output_kind is None and model.label_offset is None and not is_given:
        return
    if not model.outputs:
        raise InputError(f"{model.source} has no output", "see it with `edge inspect`")
    spec = model.outputs[0]
    raise InputError(
        f"{model.source} does not classify: its first output is {spec.dtype}{format_shape(spec.shape)}, "
        "not one value for each class",
        "see its outputs with `edge inspect`",
    )


def _are_classes(model: ModelFacts, classes: int) -> bool:
    """Return whether a fact identifies a vector as classes: it could also be an embedding or coordinates."""
    if model.output_kind is not None or model.label_offset is not None:
        return True
    if model.labels is not None and (model.labels.certainty == GIVEN or len(model.labels.names) == classes):
        return model.labels.certainty != ASSUMED or model.takes_picture
    word = _word(model.output_operator)
    return "softmax" in word or (not _is_sigmoid(word) and _has_probability_scale(model.outputs[0]))


def _kind(model: ModelFacts) -> tuple[str, tuple[str, ...]]:
    """Return the kind of the numbers, and the assumptions behind it."""
    if model.output_kind is not None:
        return model.output_kind, ()
    operator, word = model.output_operator, _word(model.output_operator)
    if ("softmax" in word and "log" not in word) or _is_sigmoid(word):
        return "probability", (f"the output is probabilities: computed by {operator} (--output)",)
    if _has_probability_scale(model.outputs[0]):
        return "probability", ("the output is probabilities: its scale is 1/256, a softmax's (--output)",)
    if not operator:
        raise UsageError(
            f"{model.source} does not show how its output is computed", "pass --output probability or --output logit"
        )
    return "logit", (f"the output is logits: computed by {operator} (--output)",)


def _word(operator: str | None) -> str:
    return (operator or "").lower().replace("_", "")


def _is_sigmoid(word: str) -> bool:
    return ("sigmoid" in word or "logistic" in word) and "log" not in word.replace("logistic", "")


def _has_probability_scale(spec: TensorSpec) -> bool:
    found = spec.quantization
    return (
        found is not None and found.scales[0] == _PROBABILITY_SCALE and found.zero_points[0] == _LOWEST.get(spec.dtype)
    )


def _is_usable(spec: TensorSpec) -> bool:
    """Return whether there is one positive scale for the whole tensor, as inputs and outputs must have."""
    found = spec.quantization
    return found is not None and len(found.scales) == 1 and 0 < found.scales[0] < float("inf")


def _labels(model: ModelFacts, classes: int) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the class names and assumptions; names in the file are ignored if their count does not match."""
    labels = model.labels
    if labels is not None:
        names = labels.of(classes)
        if len(names) == _IMAGENET and classes == _IMAGENET + 1:
            names = (_BACKGROUND, *names)
        if len(names) == classes:
            line = f"the {classes} classes are {labels.origin} (--labels)"
            return names, (line,) if labels.certainty == ASSUMED else ()
        if labels.certainty == GIVEN:
            raise label_count_error(labels.origin, len(names), classes)
    if model.origins.get("output_kind") == MANIFEST:  # an artifact without labels has none
        return None, ()
    return None, (f"the {classes} classes have no names (--labels)",)


def default_label_offset(labels: Sequence[str] | None, classes: int) -> int:
    """Return 1 if the first class is the background, judged by its label, or by ImageNet's 1001 classes; else 0."""
    has_background = labels is not None and labels[0].lower() == _BACKGROUND
    return 1 if has_background or (labels is None and classes == _IMAGENET + 1) else 0


def _name(score: ClassScore) -> str:
    return f"{score.label or 'class'} ({score.index})"
