"""Are the answers right? Each setup's answers to the evaluation pictures beside float Keras' and beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.table.pixels import Pictures
from runtimes.arrays import Array, load_arrays
from runtimes.artifact import Artifact, OutputMeaning
from runtimes.tensors import softmax

CLASSES = 1000  # ImageNet's; a model with one more has a background

# What a setup's answers must hold to be called right, out of each hundred pictures.
SAME_TOP1_FLOAT = 1.0
SAME_TOP1_INT8 = 0.97
FP32_DIFFERENCE = 1e-4  # the largest difference of a probability, in fp32


@dataclass(frozen=True)
class Agreement:
    """One setup against float Keras on `pictures` pictures.

    `same_top1` counts equal top classes, `correct` and `reference_correct` those that are the picture's own class,
    `max_difference` is the largest difference of any probability. A network with weights of its own owes float Keras
    nothing: it is right where it names as many pictures correctly.
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
        """Whether these are the source's answers, as far as the precision allows."""
        if self.own_weights:
            return self.correct >= self.reference_correct
        if self.precision == "int8":
            return self.same_top1 >= SAME_TOP1_INT8 * self.pictures
        exact = self.precision != "fp32" or self.max_difference <= FP32_DIFFERENCE
        return exact and self.same_top1 >= SAME_TOP1_FLOAT * self.pictures

    def as_dict(self) -> dict[str, Any]:
        """As machines read it."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """What a setup said: `top` is each picture's ImageNet class (−1: background), `shares` float32 [n, 1000]."""

    top: Array
    shares: Array

    def first(self, count: int) -> Answers:
        """The answers to the first pictures alone, which is all that a slow board is asked."""
        return Answers(self.top[:count], self.shares[:count])


def read_answers(outputs: Path, meaning: OutputMeaning) -> Answers:
    """The answers in a worker's outputs, counted by ImageNet's 1000 classes whatever the model's rows are."""
    (values,) = load_arrays(outputs).values()
    rows: Array = values.reshape(len(values), -1)
    return answers_of(softmax(rows) if meaning.kind == "logit" else rows, meaning.label_offset)


def answers_of(probabilities: Array, label_offset: int) -> Answers:
    """The answers in rows of probabilities, [n, classes]."""
    return Answers(probabilities.argmax(axis=1) - label_offset, probabilities[:, label_offset:])


def compare(given: Answers, reference: Answers, truth: Array, precision: str, own_weights: bool = False) -> Agreement:
    """Two setups' answers against one another and against the true classes [n]."""
    return Agreement(
        pictures=len(truth),
        same_top1=int((given.top == reference.top).sum()),
        max_difference=float(np.abs(given.shares - reference.shares).max()),
        correct=int((given.top == truth).sum()),
        reference_correct=int((reference.top == truth).sum()),
        precision=precision,
        own_weights=own_weights,
    )


@dataclass(frozen=True)
class Answered:
    """Where one setup's answers to the evaluation pictures lie, and what they are answers of."""

    outputs: Path
    artifact: Artifact
    own_weights: bool


def agreements(answered: Mapping[str, Answered], pictures: Pictures) -> dict[str, Agreement]:
    """Setup id → agreement with float Keras' answers; empty where those, or the true classes, are not known."""
    if pictures.reference is None or pictures.truth is None:
        return {}
    reference = answers_of(pictures.reference, pictures.reference.shape[1] - CLASSES)
    found = {}
    for name, one in answered.items():
        meaning = one.artifact.manifest.output
        if one.outputs.is_file() and meaning is not None:
            given = read_answers(one.outputs, meaning)
            asked, truth = reference.first(len(given.top)), pictures.truth[: len(given.top)]
            found[name] = compare(given, asked, truth, one.artifact.manifest.precision, one.own_weights)
    return found
