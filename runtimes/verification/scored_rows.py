"""Compare outputs whose rows count by a score as a decoder reads them, such as the boxes of a detector's anchors.

BlazeFace answers 896 boxes and a logit for each. Next to a face, some twenty of them have a logit above 0; all others
are far below, down to −300, and nobody reads their boxes. In int8, those boxes and logits are off by as much as they
vary, while the faces and their scores agree. So logits are compared as probabilities, and boxes where their score
counts in the source. A row that counts only in the result differs in its score.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact.self_check import OutputCheck, RowScores
from runtimes.tensors import sigmoid

FEWEST_ROWS = 8  # that must count for a comparison of these alone to mean something


def view_as_decoder(checks: Sequence[OutputCheck], expected: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
    """Return the outputs as the decoder reads them; those whose checks have no scores stay.

    Logits become probabilities, and rows that do not count in the source are 0 on both sides. All arrays are
    dequantized values [n, *shape], and those of an output have the same shape.
    """
    read: tuple[Arrays, Arrays] = dict(expected), dict(given)
    for check in checks:
        if check.scores is None:
            continue
        counting = find_counted_rows(check.scores, expected)
        for arrays in read:
            values = arrays[check.name]
            if check.name == check.scores.output:
                arrays[check.name] = _probabilities(check.scores, values)
            elif values.shape[:-1] == counting.shape:
                arrays[check.name] = np.where(counting[..., np.newaxis], values, 0).astype(values.dtype)
    return read


def find_counted_rows(scores: RowScores, expected: Arrays) -> Array:
    """Return which rows the decoder reads, as truth values of the scores' shape without its last axis."""
    best: Array = _probabilities(scores, expected[scores.output]).max(axis=-1) >= scores.least
    return best


def find_counted_samples(checks: Sequence[OutputCheck], expected: Arrays) -> Array:
    """Return which samples have rows that count; all of them if no check has scores."""
    scores = next((check.scores for check in checks if check.scores is not None), None)
    if scores is None:
        return np.ones(len(next(iter(expected.values()))), bool)
    rows = find_counted_rows(scores, expected)
    return np.asarray(rows.reshape(len(rows), -1).any(axis=1))


def _probabilities(scores: RowScores, values: Array) -> Array:
    return sigmoid(values) if scores.are_logits else values
