"""Text: classes of a text, such as its mood or topic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonValue, to_json
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import ModelFacts, TextInputs, class_names
from runtimes.task import Agreement, DecodeOptions, Decoder, Result, Task
from runtimes.tensors import dequantize, softmax

_TIE = 0.05  # classes whose scores are closer count as tied, as for pictures


@dataclass(frozen=True)
class TextClass:
    """A class and its score."""

    label: str | None
    index: int
    score: float


@dataclass(frozen=True)
class TextClasses(Result):
    """Classes, highest score first."""

    classes: tuple[TextClass, ...]

    def to_json(self) -> JsonValue:
        """Return [{"label", "index", "score"}], highest first."""
        return [to_json(one) for one in self.classes]


@dataclass(frozen=True)
class SequenceScores(Decoder[TextClasses]):
    """Decodes a first output with one number per class of the whole text.

    output: The output's spec.
    text: The inputs that take a text.
    is_logit: Whether a softmax over the classes is missing; of a single class, a sigmoid.
    labels: The class names.
    count: The number of classes in a result.
    """

    output: TensorSpec
    text: TextInputs
    is_logit: bool = True
    labels: tuple[str, ...] | None = None
    count: int = 5
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> SequenceScores | None:
        """Accept token ids, and a vector that the metadata or the class names show to be classes."""
        text, spec = model.text_inputs, next(iter(model.outputs), None)
        if text is None or spec is None or len(spec.shape) != 2 or not isinstance(spec.shape[1], int):
            return None
        labels, unnamed = class_names(model, spec.shape[1])
        if model.task != TextTask.id and labels is None:
            return None
        operator = (model.output_operator or "").lower()
        is_logit = not any(word in operator for word in ("softmax", "sigmoid", "logistic"))
        logits = ("the outputs are logits, to which a softmax is applied",) if is_logit else ()
        return cls(spec, text, is_logit, labels, assumptions=(*unnamed, *logits))

    def texts(self) -> TextInputs:
        """Return the inputs that take a text."""
        return self.text

    def configured(self, options: DecodeOptions) -> SequenceScores:
        """Return a copy with the requested number of classes."""
        return replace(self, count=options.top)

    def decode(self, outputs: Mapping[str, Array]) -> TextClasses:
        """Return the best classes; ties go to the lower index. Raises InputError for an output of another layout."""
        name = self.output.name
        real = dequantize(outputs[name], self.output.quantization).reshape(-1)
        if real.size != self.output.shape[1]:
            raise InputError(
                f"'{name}' holds {real.size} numbers; one text gives {self.output.shape[1]}", "give one text"
            )
        if not np.isfinite(real).all():
            raise InputError(f"the model computed NaN or infinity in '{name}'", "check the input's values")
        scores = real
        if self.is_logit:
            scores = softmax(real) if real.size > 1 else 1 / (1 + np.exp(-np.clip(real, -80, 80)))
        order = np.argsort(-scores, kind="stable")[: self.count].tolist()
        return TextClasses(
            tuple(TextClass(self.labels[i] if self.labels else None, i, float(scores[i])) for i in order)
        )


class TextTask(Task[TextClasses]):
    """Returns the classes of a text."""

    id: ClassVar[str] = "text"
    rank: ClassVar[int] = 45  # before classification, which takes any vector with class names
    decoders = (SequenceScores,)

    def compare(self, expected: TextClasses, actual: TextClasses) -> Agreement:
        """Results agree if their top class is the same or tied; with a single class, if its scores are within 0.05."""
        wanted, found = ({one.index: one.score for one in result.classes} for result in (expected, actual))
        first, second = expected.classes[0], actual.classes[0]
        largest = max((abs(wanted[index] - found[index]) for index in set(wanted) & set(found)), default=1.0)
        is_tie = second.index in wanted and first.score - wanted[second.index] < _TIE
        agrees = largest <= _TIE if len(wanted) == 1 == len(found) else first.index == second.index or is_tie
        words = f"{_name(first)} at {first.score:.4f}, and here {_name(second)} at {second.score:.4f}"
        return Agreement(agrees, {"top1_equal": float(first.index == second.index), "score_difference": largest}, words)


def _name(one: TextClass) -> str:
    return f"{one.label or 'class'} ({one.index})"
