"""Compare the top-1 accuracy of a source and of its conversion on labeled inputs.

The labels are an array in the same `.npz` as the inputs: `classes` are class indices from 0 without a background class
(ImageNet: 0…999), which the output's label offset maps to rows; `rows` are rows of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from converters.calibration.dataset import PIXELS, Calibration, from_arrays, from_pixels, to_model_dtypes
from converters.pipeline.reference import Reference
from converters.pipeline.tensor_matching import pair_tensors
from converters.pipeline.verification import map_tensors
from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact import TensorSpec
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError, ProofError
from runtimes.session import Session, concrete_shape
from runtimes.verification.selfcheck import answers

CLASSES, ROWS = "classes", "rows"
_AT_ONCE = 64  # inputs in memory as floats: 40 MB at 224 × 224
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Labeled inputs of the source.

    reference: The source's inputs, outputs and preprocessing.
    arrays: The inputs, as pixels or as arrays.
    rows: The correct row of the output for each input.
    """

    reference: Reference
    arrays: Arrays
    rows: Array

    def __len__(self) -> int:
        """The number of labeled inputs."""
        return len(self.rows)

    def batches(self) -> Iterator[Calibration]:
        """Yield the inputs in batches, as the source takes them."""
        for start in range(0, len(self), _AT_ONCE):
            arrays = {name: values[start : start + _AT_ONCE] for name, values in self.arrays.items()}
            if set(arrays) == {PIXELS}:
                yield from_pixels(arrays[PIXELS], self.reference.inputs, self.reference.preprocess)
            else:
                yield from_arrays(arrays, self.reference.inputs)

    def predict(self, session: Session) -> Array:
        """Run the model in `session` and return the top row of its first output for each input, int [n]."""
        specs = self.reference.inputs, tuple(session.inputs)
        output = pair_tensors(self.reference.outputs, tuple(session.outputs), "output")[0].other.name
        parts = []
        for batch in self.batches():
            outputs = answers(session, to_model_dtypes(session.inputs, map_tensors(*specs, batch.samples)))
            parts.append(outputs[output].reshape(len(batch) * self._batch(), -1).argmax(axis=1))
        rows: Array = np.concatenate(parts)[: len(self)]
        return rows

    def _batch(self) -> int:
        """Return how many of the pictures one inference takes; arrays are given as the model takes them."""
        shape = concrete_shape(self.reference.inputs[0])
        return shape[0] if set(self.arrays) == {PIXELS} else 1

    def notes(self, allowed: float) -> list[str]:
        """Return caveats about the inputs, which limit what the accuracy means."""
        notes = []
        if len(set(self.rows.tolist())) == 1:
            notes.append(
                f"all {len(self)} evaluation inputs have the same class: a model that always predicts it passes"
            )
        if 1 / len(self) > allowed > 0:
            notes.append(
                f"{len(self)} evaluation inputs are few: each additional error is a drop of {1 / len(self):.2g}"
            )
        return notes


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """A limit on the loss of accuracy.

    evaluation: The labeled inputs.
    source: The source's top row for each of them.
    allowed: By how much the top-1 accuracy of a result may fall, 0 to 1.
    """

    evaluation: Evaluation
    source: Array
    allowed: float

    def accuracy(self, session: Session, size: int) -> Accuracy:
        """Measure the accuracy of the result in `session`, whose files have `size` bytes."""
        predicted = self.evaluation.predict(session)
        sources, right = self.source == self.evaluation.rows, predicted == self.evaluation.rows
        return Accuracy(
            samples=len(right),
            source=int(sources.sum()),
            result=int(right.sum()),
            lost=int((sources & ~right).sum()),
            alike=int((predicted == self.source).sum()),
            allowed=self.allowed,
            size=size,
        )

    def notes(self) -> list[str]:
        """Return caveats about the inputs, which limit what the accuracy means."""
        return self.evaluation.notes(self.allowed)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracy of a source and its conversion.

    samples: The number of labeled inputs.
    source: How many the source classifies correctly.
    result: How many the result classifies correctly.
    lost: How many the source classifies correctly and the result does not; it may gain others instead.
    alike: How many both classify alike, correctly or not.
    allowed: The largest allowed drop in top-1 accuracy, 0 to 1.
    size: The size of the result's files in bytes.
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
        """By how much the top-1 accuracy falls, 0 to 1; negative if the result is more accurate."""
        return (self.source - self.result) / self.samples

    @property
    def passed(self) -> bool:
        """Whether the drop is within the limit."""
        return self.drop <= self.allowed + _SLACK

    def as_dict(self) -> JsonObject:
        """Return JSON values: shares of the samples, and bytes."""
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

    def error(self, worst_layers: str, hint: str) -> ProofError:
        """Return the drop as an error; `worst_layers` names the layers that lose most, empty if they are not known."""
        what = f"top-1 falls from {self.source} to {self.result} of {self.samples} evaluation inputs"
        layers = f"; the layers that lose most: {worst_layers}" if worst_layers else ""
        return ProofError(f"{what}, by {self.drop:.3g}; at most {self.allowed:.3g} is allowed{layers}", hint)


def read_evaluation(path: Path, reference: Reference) -> Evaluation:
    """Read labeled inputs from an `.npz`.

    Raises InputError if they do not fit the source or overlap with the calibration inputs.
    """
    arrays = load_arrays(path, hint="write it with numpy.savez")
    labels = {key: arrays.pop(key) for key in (CLASSES, ROWS) if key in arrays}
    if len(labels) != 1 or not arrays:
        raise InputError(f"{path} contains no labeled inputs", f"it needs inputs and '{CLASSES}', one number for each")
    key, values = next(iter(labels.items()))
    evaluation = Evaluation(reference=reference, arrays=arrays, rows=_rows(path, key, values, reference))
    if any(len(array) != len(values) for array in arrays.values()):
        raise InputError(
            f"{path} has {len(values)} labels for a different number of inputs", "write one for each input"
        )
    if reference.calibration is not None:
        _check_apart(evaluation, reference.calibration)
    return evaluation


def make_accuracy_gate(path: Path, allowed: float, reference: Reference, session: Session) -> AccuracyGate:
    """Read labeled inputs and classify them with the source.

    Raises the errors of `read_evaluation`, and InputError if the source classifies none of them correctly, because the
    labels then do not belong to it.
    """
    evaluation = read_evaluation(path, reference)
    answered = evaluation.predict(session)
    if not (answered == evaluation.rows).any():
        what = f"the source itself classifies none of the {len(evaluation)} evaluation inputs correctly"
        raise InputError(what, "check the classes (counted from 0, without a background), --label-offset, --preprocess")
    return AccuracyGate(evaluation=evaluation, source=answered, allowed=allowed)


def _rows(path: Path, key: str, values: Array, reference: Reference) -> Array:
    if values.ndim != 1 or values.dtype.kind not in "iu" or len(values) == 0:
        raise InputError(f"'{key}' in {path} is {values.dtype}{list(values.shape)}", "write one integer for each input")
    offset = reference.meaning.label_offset if reference.meaning and key == CLASSES else 0
    rows = values.astype(np.int64) + offset
    count = _classes(reference.outputs[0])
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
    """Reject calibration inputs among the evaluation inputs: the quantization ranges fit them unrealistically well."""
    known = set(_digests(calibration))
    both = sum(one in known for batch in evaluation.batches() for one in _digests(batch))
    if both:
        what = f"{both} of the {len(evaluation)} evaluation inputs are also calibration inputs"
        raise InputError(what, "use separate sets: the accuracy on calibration inputs is not representative")


def _digests(samples: Calibration) -> list[bytes]:
    """Return a digest of each sample."""
    return [sha256(b"".join(value.tobytes() for value in feed.values())).digest() for feed in samples.feeds()]
