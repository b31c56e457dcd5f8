"""Check each setup's predictions for the evaluation pictures against float Keras and against the true classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.table.images import Pictures
from runtimes.arrays import Array, load_arrays
from runtimes.artifact import Artifact, OutputMeaning
from runtimes.tensors import softmax

CLASSES = 1000  # ImageNet's; a model with one more has a background

# The limits for correct predictions: the share with the same top-1 class, and the difference of probabilities.
SAME_TOP1_FLOAT = 1.0
SAME_TOP1_INT8 = 0.97
FP32_DIFFERENCE = 1e-4  # the largest difference of a probability, in fp32


@dataclass(frozen=True, kw_only=True)
class TableAgreement:
    """The agreement of a setup with float Keras.

    pictures: The number of pictures compared.
    same_top1: The number of pictures with the same top class.
    max_difference: The largest difference of any probability.
    correct: How many pictures the setup classifies correctly.
    reference_correct: How many float Keras classifies correctly.
    precision: The precision of the setup's model.
    own_weights: Whether the model has other weights; it need not agree then, only classify as many correctly.
    """

    pictures: int
    same_top1: int
    max_difference: float
    correct: int
    reference_correct: int
    precision: str
    own_weights: bool = False

    @property
    def is_right(self) -> bool:
        """Whether the predictions match the source's, as far as the precision allows."""
        if self.own_weights:
            return self.correct >= self.reference_correct
        if self.precision == "int8":
            return self.same_top1 >= SAME_TOP1_INT8 * self.pictures
        exact = self.precision != "fp32" or self.max_difference <= FP32_DIFFERENCE
        return exact and self.same_top1 >= SAME_TOP1_FLOAT * self.pictures


@dataclass(frozen=True)
class Answers:
    """A setup's predictions.

    top: The ImageNet class of each picture [n]; −1 is background.
    shares: The probabilities [n, 1000].
    """

    top: Array
    shares: Array

    def first(self, count: int) -> Answers:
        """Return the predictions for the first `count` pictures; a slow board only runs those."""
        return Answers(self.top[:count], self.shares[:count])


def read_answers(outputs: Path, meaning: OutputMeaning) -> Answers:
    """Read predictions from a worker's outputs, mapped to ImageNet's 1000 classes."""
    (values,) = load_arrays(outputs).values()
    rows: Array = values.reshape(len(values), -1)
    return answers_of(softmax(rows) if meaning.kind == "logit" else rows, meaning.label_offset)


def answers_of(probabilities: Array, label_offset: int) -> Answers:
    """Convert probabilities [n, classes] to predictions."""
    return Answers(probabilities.argmax(axis=1) - label_offset, probabilities[:, label_offset:])


def compare(
    answers: Answers, reference: Answers, classes: Array, precision: str, own_weights: bool = False
) -> TableAgreement:
    """Compare the predictions of two setups with each other and with the true classes [n]."""
    return TableAgreement(
        pictures=len(classes),
        same_top1=int((answers.top == reference.top).sum()),
        max_difference=float(np.abs(answers.shares - reference.shares).max()),
        correct=int((answers.top == classes).sum()),
        reference_correct=int((reference.top == classes).sum()),
        precision=precision,
        own_weights=own_weights,
    )


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """The file with a setup's outputs for the evaluation pictures, and the artifact that they come from."""

    outputs: Path
    artifact: Artifact
    own_weights: bool


def agreements(answered: Mapping[str, AnswerFile], pictures: Pictures) -> dict[str, TableAgreement]:
    """Return the agreement with float Keras by setup id; empty if its predictions or the true classes are not known."""
    if pictures.reference is None or pictures.truth is None:
        return {}
    reference = answers_of(pictures.reference, pictures.reference.shape[1] - CLASSES)
    by_setup = {}
    for setup, file in answered.items():
        meaning = file.artifact.manifest.output
        if file.outputs.is_file() and meaning is not None:
            answers = read_answers(file.outputs, meaning)
            count = len(answers.top)
            precision = file.artifact.manifest.precision
            by_setup[setup] = compare(
                answers, reference.first(count), pictures.truth[:count], precision, file.own_weights
            )
    return by_setup
