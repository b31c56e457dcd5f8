"""How far are an artifact's answers from its source's? Numbers between 0 and a perfect copy, and five probes.

All arrays are real (dequantised) values, stacked over the samples on the first axis: [n, …].
"""

from __future__ import annotations

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError

IDENTICAL_DB = 200.0  # stands for "no noise at all"; float32 itself ends near 150 dB
_SUM_SLACK = 1e-3  # of a float32 softmax over a thousand classes
_SUM_LOST = 0.5  # a uint8 softmax rounds the many small probabilities of an unsure answer to nothing
_TOP_TIES = 0.25  # more samples than this whose top value is cut off: the output is clipped
_TIED_APART = 0.1  # of the span of the source's answers: what lies closer may tie in a right artifact

# Metric → whether more of it is better.
METRICS = {"max_abs": False, "snr_db": True, "cosine": True, "top1_agreement": True}


def compare(source: Array, artifact: Array) -> dict[str, float]:
    """Every metric between two arrays of the same shape [n, …]; InputError when the shapes differ.

    `max_abs`: largest absolute difference of any value. `snr_db`: power of what changes in the source from sample to
    sample over the power of the difference, in dB: an artifact that always answers the same has none, however close
    its answers lie. `cosine`: mean over the samples of the cosine between both answers, each sample weighing as its
    larger answer does: one near zero has no direction but that of its rounding. `top1_agreement`: share of the samples
    whose largest value stands at the same place.
    """
    if source.shape != artifact.shape:
        raise InputError(f"answers of shapes {list(source.shape)} and {list(artifact.shape)} do not compare")
    expected, given = _rows(source), _rows(artifact)
    difference = given - expected
    return {
        "max_abs": float(np.abs(difference).max()),
        "snr_db": _decibels(_signal(expected), float(np.square(difference).mean())),
        "cosine": _cosine(expected, given),
        "top1_agreement": float((expected.argmax(axis=1) == given.argmax(axis=1)).mean()),
    }


def meets(metric: str, value: float, limit: float) -> bool:
    """Whether `value` is as good as `limit` or better; InputError for a metric that does not exist."""
    if metric not in METRICS:
        raise InputError(f"there is no metric '{metric}'", f"metrics: {', '.join(METRICS)}")
    return value >= limit if METRICS[metric] else value <= limit


def probe(source: Array, artifact: Array) -> str | None:
    """What is plainly broken in `artifact` and not in `source`, in words that follow "the output"; None when nothing.

    Looks for values that are not finite, answers that never change, values clipped at the top of their range, and
    rows that no longer sum to one where the source's do.
    """
    expected, given = _rows(source), _rows(artifact)
    if not np.isfinite(given).all():
        return "holds values that are not finite (NaN or infinity)"
    if is_constant(given) and not is_constant(expected):
        return "is the same for every input"
    clipped = _clipped(expected, given)
    if clipped > _TOP_TIES:
        return f"is clipped: the top value is tied in {clipped:.0%} of the samples, where the source's differ"
    if sums_to_one(expected) and abs(float(given.sum(axis=1).mean()) - 1) > _SUM_LOST:
        return f"no longer sums to one as the source's does, but to {float(given.sum(axis=1).mean()):.3g}"
    return None


def is_constant(values: Array) -> bool:
    """Whether all samples of [n, …] are equal up to float32's rounding; False for a single sample."""
    rows = _rows(values)
    if len(rows) < 2:
        return False
    return bool(np.abs(rows - rows[0]).max() <= 1e-6 * np.abs(rows).max())


def sums_to_one(values: Array) -> bool:
    """Whether every sample of [n, classes] is a distribution: two values or more, none negative, sum 1."""
    rows = _rows(values)
    return bool(rows.shape[1] > 1 and (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= _SUM_SLACK).all())


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1).astype(np.float64)


def _signal(rows: Array) -> float:
    return float(np.square(rows - rows.mean(axis=0)).mean() if len(rows) > 1 else np.square(rows).mean())


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return IDENTICAL_DB
    if signal == 0:
        return 0.0
    return float(min(IDENTICAL_DB, 10 * np.log10(signal / noise)))


def _cosine(expected: Array, given: Array) -> float:
    sizes = np.linalg.norm(expected, axis=1), np.linalg.norm(given, axis=1)
    weights, products = np.maximum(*sizes), np.multiply(*sizes)
    if not weights.any():
        return 1.0
    cosines = np.divide((expected * given).sum(axis=1), products, out=np.zeros(len(products)), where=products > 0)
    return float((cosines * weights).sum() / weights.sum())


def _clipped(expected: Array, given: Array) -> float:
    """Share of the samples whose top value is the largest of all samples, and stands for different ones of the source.

    Different are values that lie further apart than a part of all that the source's answers span: those as good as
    equal tie in 8 bits without being cut off.
    """
    top = given.max()
    if given.shape[1] < 2 or given.min() == top:
        return 0.0
    tied = (given == top) & ((given == top).sum(axis=1) > 1)[:, np.newaxis]
    apart = np.where(tied, expected, -np.inf).max(axis=1) - np.where(tied, expected, np.inf).min(axis=1)
    span = expected.max() - np.percentile(expected, 10)  # a few values that a mask set far off do not widen it
    return float((apart > _TIED_APART * span).mean())
