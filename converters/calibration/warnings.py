"""Detect suspicious calibration data by the source's outputs: a single class, or swapped color channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.calibration.dataset import Calibration, to_model_dtypes
from runtimes.arrays import Array, Arrays
from runtimes.artifact import OutputMeaning
from runtimes.session import Session
from runtimes.tensors import softmax
from runtimes.verification.selfcheck import answers as answers_of

_FEWEST = 5  # with fewer samples, a single class is likely
_FEWEST_CLASSES = 3
# How much more confident the source must be of swapped pictures.
# Mean top probability of the MobileNetV2 of 2019 on 32 pictures,
# as they are and swapped: 0.84 and 0.59, of 32 others 0.81 and 0.64.
_MIN_GAIN = 0.1


def check_calibration(
    session: Session, samples: Calibration, answers: Arrays, meaning: OutputMeaning | None
) -> Iterator[str]:
    """Return warnings about `samples`, for which the source in `session` computed `answers`; only for classifiers."""
    name = session.outputs[0].name
    if meaning is None or len(samples) < _FEWEST or answers[name][0].size < _FEWEST_CLASSES:
        return
    shares = _probabilities(answers[name], meaning)
    if len(set(shares.argmax(axis=1).tolist())) == 1:
        row = int(shares[0].argmax())
        yield (
            f"all {len(samples)} held-out calibration samples are of one class to the source (row {row} of its output):"
            " calibrate with inputs of every class"
        )
    swapped = _swap_channels(samples)
    if swapped is None:
        return
    other = answers_of(session, to_model_dtypes(session.inputs, swapped.samples))
    plain, exchanged = _mean_confidence(shares), _mean_confidence(_probabilities(other[name], meaning))
    if exchanged > plain + _MIN_GAIN:
        yield (
            "the source is more confident about the calibration pictures with red and blue swapped (mean top "
            f"probability {exchanged:.2f}, and {plain:.2f} unswapped): is the channel order right (--color)?"
        )


def _probabilities(answers: Array, meaning: OutputMeaning) -> Array:
    """Reshape to [n, classes]."""
    rows = answers.reshape(len(answers), -1)
    return softmax(rows) if meaning.kind == "logit" else rows


def _mean_confidence(shares: Array) -> float:
    return float(shares.max(axis=1).mean())


def _swap_channels(samples: Calibration) -> Calibration | None:
    """Return the pictures with first and third channels swapped; None unless they have three channels."""
    name, values = next(iter(samples.samples.items()))
    axes = [
        axis for axis in (-1, 2) if values.ndim == 5 and values.shape[axis] == 3
    ]  # [n, 1, h, w, 3], [n, 1, 3, h, w]
    if len(samples.samples) != 1 or not axes:
        return None
    return Calibration({name: np.flip(values, axes[0])})
