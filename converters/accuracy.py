"""How many labelled inputs the source answers right, how many the result does, and what may lie between.

The labels come as an `.npz` beside the inputs: `classes` counts real classes from 0, as ImageNet's 0…999, and the
output's meaning says which row that is; `rows` counts rows of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration import PIXELS, Calibration, from_arrays, from_pixels
from converters.matching import pair_tensors
from converters.proof import fed, translated
from converters.truth import Truth
from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact import TensorSpec
from runtimes.errors import InputError, ProofError
from runtimes.selfcheck import answers
from runtimes.session import Session

CLASSES, ROWS = "classes", "rows"
_AT_ONCE = 64  # inputs in memory as floats: 40 MB at 224 × 224
_SLACK = 1e-9


@dataclass(frozen=True)
class Evaluation:
    """Labelled inputs of the source, as they came: pixels or arrays, and the output row that is right for each."""

    truth: Truth
    arrays: Arrays
    rows: Array

    def __len__(self) -> int:
        """The number of labelled inputs."""
        return len(self.rows)

    def batches(self) -> Iterator[Calibration]:
        """The inputs as the source takes them, a number of them at a time."""
        for start in range(0, len(self), _AT_ONCE):
            arrays = {name: values[start : start + _AT_ONCE] for name, values in self.arrays.items()}
            if set(arrays) == {PIXELS}:
                yield from_pixels(arrays[PIXELS], self.truth.inputs, self.truth.preprocess)
            else:
                yield from_arrays(arrays, self.truth.inputs)

    def answered(self, session: Session) -> Array:
        """The row that the first output of the model in `session` answers each input with: int [n]."""
        specs = self.truth.inputs, tuple(session.inputs)
        output = pair_tensors(self.truth.outputs, tuple(session.outputs), "output")[0].other.name
        found = []
        for batch in self.batches():
            given = answers(session, fed(session.inputs, translated(*specs, batch.samples)))
            found.append(given[output].reshape(len(batch), -1).argmax(axis=1))
        rows: Array = np.concatenate(found)
        return rows

    def notes(self, allowed: float) -> list[str]:
        """What a reader of the accuracy should know of the inputs."""
        notes = []
        if len(set(self.rows.tolist())) == 1:
            notes.append(
                f"all {len(self)} evaluation inputs are of the same class: a model that always answers it passes"
            )
        if 1 / len(self) > allowed > 0:
            notes.append(
                f"{len(self)} evaluation inputs are few: one wrong answer more is a drop of {1 / len(self):.2g}"
            )
        return notes


@dataclass(frozen=True)
class Judge:
    """Labelled inputs, the row that the source answers each with, and by how much a result's top-1 may fall."""

    evaluation: Evaluation
    source: Array
    allowed: float

    def accuracy(self, session: Session, size: int) -> Accuracy:
        """That of the result in `session`, whose files have `size` bytes."""
        given = self.evaluation.answered(session)
        sources, right = self.source == self.evaluation.rows, given == self.evaluation.rows
        return Accuracy(
            samples=len(right),
            source=int(sources.sum()),
            result=int(right.sum()),
            lost=int((sources & ~right).sum()),
            alike=int((given == self.source).sum()),
            allowed=self.allowed,
            size=size,
        )

    def notes(self) -> list[str]:
        """What a reader of the accuracy should know of the inputs."""
        return self.evaluation.notes(self.allowed)


@dataclass(frozen=True)
class Accuracy:
    """Right answers of source and result out of `samples`, the drop in top-1 that is allowed, the result's bytes.

    `lost` are right answers of the source that the result gets wrong; it may make up for them elsewhere. `alike` are
    inputs that both answer with the same row, right or wrong.
    """

    samples: int
    source: int
    result: int
    lost: int
    alike: int
    allowed: float
    size: int

    @property
    def drop(self) -> float:
        """By how much top-1 falls, 0 to 1; negative where the result is right more often."""
        return (self.source - self.result) / self.samples

    @property
    def passed(self) -> bool:
        """Whether the drop is no larger than allowed."""
        return self.drop <= self.allowed + _SLACK

    def as_dict(self) -> dict[str, Any]:
        """For machines: shares of the samples, and bytes."""
        return {
            "samples": self.samples,
            "source": round(self.source / self.samples, 6),
            "artifact": round(self.result / self.samples, 6),
            "drop": round(self.drop, 6),
            "lost": self.lost,
            "alike": self.alike,
            "max_drop": self.allowed,
            "passed": self.passed,
            "bytes": self.size,
        }

    def error(self, blamed: str, hint: str) -> ProofError:
        """The drop as an error; `blamed` are the layers that lose most, in words, empty where nobody knows them."""
        what = f"top-1 falls from {self.source} to {self.result} of {self.samples} evaluation inputs"
        layers = f"; the layers that lose most: {blamed}" if blamed else ""
        return ProofError(f"{what}, by {self.drop:.3g}; at most {self.allowed:.3g} is allowed{layers}", hint)


def read_evaluation(path: Path, truth: Truth) -> Evaluation:
    """The labelled inputs in an `.npz`; InputError where they do not fit the source or overlap with the calibration."""
    arrays = load_arrays(path, hint="write it with numpy.savez")
    labels = {key: arrays.pop(key) for key in (CLASSES, ROWS) if key in arrays}
    if len(labels) != 1 or not arrays:
        raise InputError(f"{path} holds no labelled inputs", f"it needs inputs and '{CLASSES}', one number for each")
    key, values = next(iter(labels.items()))
    evaluation = Evaluation(truth, arrays, _rows(path, key, values, truth))
    if any(len(array) != len(values) for array in arrays.values()):
        raise InputError(f"{path} holds {len(values)} labels for another number of inputs", "give one for each input")
    if truth.calibration is not None:
        _check_apart(evaluation, truth.calibration)
    return evaluation


def judge_of(path: Path, allowed: float, truth: Truth, session: Session) -> Judge:
    """Labelled inputs and the source's right answers to them.

    InputError as of `read_evaluation`, and when none is right, for then the labels are not the source's.
    """
    evaluation = read_evaluation(path, truth)
    answered = evaluation.answered(session)
    if not (answered == evaluation.rows).any():
        what = f"the source itself answers none of the {len(evaluation)} evaluation inputs right"
        raise InputError(what, "check the classes (counted from 0, without a background), --label-offset, --preprocess")
    return Judge(evaluation, answered, allowed)


def _rows(path: Path, key: str, values: Array, truth: Truth) -> Array:
    if values.ndim != 1 or values.dtype.kind not in "iu" or len(values) == 0:
        raise InputError(f"'{key}' in {path} is {values.dtype}{list(values.shape)}", "give whole numbers, one an input")
    offset = truth.meaning.label_offset if truth.meaning and key == CLASSES else 0
    rows = values.astype(np.int64) + offset
    count = _classes(truth.outputs[0])
    if count is None:
        return rows
    wrong = rows[(rows < 0) | (rows >= count)]
    if len(wrong):
        what = f"class {wrong[0] - offset} would be row {wrong[0]} of the output, whose rows are 0 to {count - 1}"
        raise InputError(what, "count classes from 0, without a background; see --label-offset")
    return rows


def _classes(output: TensorSpec) -> int | None:
    size = output.shape[-1] if output.shape else None
    return size if isinstance(size, int) and size > 1 else None


def _check_apart(evaluation: Evaluation, calibration: Calibration) -> None:
    """What is calibrated with may not be evaluated on: the ranges fit it better than what comes in use."""
    known = set(_prints(calibration))
    both = sum(one in known for batch in evaluation.batches() for one in _prints(batch))
    if both:
        what = f"{both} of the {len(evaluation)} evaluation inputs are calibration inputs too"
        raise InputError(what, "keep them apart: an accuracy on inputs that were calibrated with proves little")


def _prints(samples: Calibration) -> list[bytes]:
    """A digest of each sample."""
    return [sha256(b"".join(value.tobytes() for value in feed.values())).digest() for feed in samples.feeds()]
