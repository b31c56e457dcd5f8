"""Metrics of the difference between an artifact's outputs and its source's, and probes for obvious defects.

All arrays are dequantized values, stacked over the samples on the first axis: [n, …].
"""

from __future__ import annotations

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError

IDENTICAL_DB = 200.0  # reported for no noise at all; the limit of float32 is near 150 dB
_SUM_SLACK = 1e-3  # rounding of a float32 softmax over a thousand classes
_SUM_LOST = 0.5  # a uint8 softmax rounds the many small probabilities of an uncertain output to zero
_TOP_TIES = 0.25  # the output counts as clipped if the top value is saturated in more samples than this
_TIED_APART = 0.1  # share of the source's output range: closer values may tie in a correct artifact

LABELS_EQUAL = "labels_equal"  # the share of equal elements of integer and boolean outputs: `verification.labels`
ROWS_MATCHED = "rows_matched"  # the share of matching rows where their number varies: `verification.rows`

# Metric → whether higher is better.
METRICS = {
    "max_abs": False,
    "snr_db": True,
    "cosine": True,
    "top1_agreement": True,
    LABELS_EQUAL: True,
    ROWS_MATCHED: True,
}


def compare(source: Array, artifact: Array) -> dict[str, float]:
    """Compute all metrics between two arrays of the same shape [n, …]. Raises InputError if the shapes differ.

    max_abs: The largest absolute difference of any value.
    snr_db: The power of the source's variation between samples over the power of the difference, in dB. A constant
        output scores nothing, however close it is.
    cosine: The mean over the samples of the cosine between both outputs, weighted by the larger of their norms: the
        direction of an output near zero is only rounding noise.
    top1_agreement: The share of samples whose largest value is at the same index.
    """
    if source.shape != artifact.shape:
        raise InputError(f"outputs of shapes {list(source.shape)} and {list(artifact.shape)} cannot be compared")
    if not source.size:
        return {"max_abs": 0.0, "snr_db": IDENTICAL_DB, "cosine": 1.0, "top1_agreement": 1.0}
    expected, actual = _rows(source), _rows(artifact)
    difference = actual - expected
    return {
        "max_abs": float(np.abs(difference).max()),
        "snr_db": _decibels(_signal(expected), float(np.square(difference).mean())),
        "cosine": _cosine(expected, actual),
        "top1_agreement": float((expected.argmax(axis=1) == actual.argmax(axis=1)).mean()),
    }


def meets(metric: str, value: float, limit: float) -> bool:
    """Return whether `value` is as good as `limit` or better. Raises InputError for an unknown metric."""
    if metric not in METRICS:
        raise InputError(f"there is no metric '{metric}'", f"metrics: {', '.join(METRICS)}")
    return value >= limit if METRICS[metric] else value <= limit


def probe(source: Array, artifact: Array) -> str | None:
    """Describe an obvious defect of `artifact` that `source` lacks, as text that follows "the output"; None if none.

    Checks for non-finite values, outputs that never change, values clipped at the top of their range, and rows that no
    longer sum to one although the source's do.
    """
    if not artifact.size:
        return None
    expected, actual = _rows(source), _rows(artifact)
    if not np.isfinite(actual).all():
        return "holds values that are not finite (NaN or infinity)"
    if not np.isfinite(expected).all():
        return "is finite where the source's is not (NaN or infinity)"
    if is_constant(actual) and not is_constant(expected):
        return "is the same for every input"
    clipped = _clipped_share(expected, actual)
    if clipped > _TOP_TIES:
        return f"is clipped: the top value is tied in {clipped:.0%} of the samples, where the source's differ"
    if sums_to_one(expected) and abs(float(actual.sum(axis=1).mean()) - 1) > _SUM_LOST:
        return f"no longer sums to one as the source's does, but to {float(actual.sum(axis=1).mean()):.3g}"
    return None


def comparable(source: Array, artifact: Array) -> tuple[Array, Array]:
    """Return both outputs with 0 where both hold NaN, or the same infinity; other values that are not finite stay."""
    if source.shape != artifact.shape or np.isfinite(source).all():
        return source, artifact
    same = (np.isnan(source) & np.isnan(artifact)) | (np.isinf(source) & (source == artifact))
    return np.where(same, 0, source).astype(source.dtype), np.where(same, 0, artifact).astype(artifact.dtype)


def is_constant(values: Array) -> bool:
    """Return whether all samples of [n, …] are equal up to float32 rounding; False for a single sample."""
    rows = _rows(values)
    if len(rows) < 2:
        return False
    if not rows.size:
        return True
    same = (rows == rows[0]) | (np.isnan(rows) & np.isnan(rows[0]))
    apart = np.abs(np.subtract(rows, rows[0], out=np.zeros_like(rows), where=~same))
    return bool(apart.max() <= 1e-6 * np.abs(rows[np.isfinite(rows)]).max(initial=0))


def sums_to_one(values: Array) -> bool:
    """Return whether every sample of [n, classes] is a distribution: at least two values, none negative, sum 1."""
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


def _cosine(expected: Array, actual: Array) -> float:
    sizes = np.linalg.norm(expected, axis=1), np.linalg.norm(actual, axis=1)
    weights, products = np.maximum(*sizes), np.multiply(*sizes)
    if not weights.any():
        return 1.0
    cosines = np.divide((expected * actual).sum(axis=1), products, out=np.zeros(len(products)), where=products > 0)
    return float((cosines * weights).sum() / weights.sum())


def _clipped_share(expected: Array, actual: Array) -> float:
    """Return the share of samples whose top value is the global maximum although the source's top values differ.

    Values differ if they are further apart than a share of the source's output range: nearly equal ones tie in 8 bits
    without being clipped.
    """
    top = actual.max()
    if actual.shape[1] < 2 or actual.min() == top:
        return 0.0
    tied = (actual == top) & ((actual == top).sum(axis=1) > 1)[:, np.newaxis]
    apart = np.where(tied, expected, -np.inf).max(axis=1) - np.where(tied, expected, np.inf).min(axis=1)
    span = expected.max() - np.percentile(expected, 10)  # ignores a few extreme values set by a mask
    return float((apart > _TIED_APART * span).mean())
