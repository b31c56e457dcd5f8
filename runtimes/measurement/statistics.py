"""Distribution-free statistics of latencies, whose distributions have outliers, several modes and a long tail.

All are based on order statistics and assume independent samples. Consecutive inferences are nearly independent on an
idle machine. No interval accounts for a drifting clock; only more rounds do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence, Union

import numpy as np

from runtimes.arrays import Array

Samples = Union[Sequence[float], Array]

# MLPerf's confidence for percentiles, c in loadgen/early_stopping.cc of github.com/mlcommons/inference.
PERCENTILE_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, in the samples' unit."""

    low: float
    value: float
    high: float

    def within(self, share: float) -> bool:
        """Return whether both ends are within ±`share` (0.01 is 1 %) of the value."""
        return self.low >= self.value * (1 - share) and self.high <= self.value * (1 + share)

    def overlaps(self, low: float, high: float) -> bool:
        """Return whether the interval intersects [low, high]."""
        return self.low <= high and self.high >= low


def median(samples: Samples) -> float:
    """Return the median; for an even number of samples, the mean of the two middle ones."""
    return float(np.median(np.asarray(samples, np.float64)))


def median_interval(samples: Samples, confidence: float = 0.95) -> Interval | None:
    """Return the median and its distribution-free confidence interval; None for fewer than 6 samples (at 0.95).

    The j-th smallest and the j-th largest sample, for the largest j with P(Binomial(n, ½) < j) ≤ (1 − confidence) / 2;
    the true median is between them with at least that confidence.
    Source: H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition 2003, section 7.1.
    """
    rank = _largest_count(len(samples), 0.5, (1 - confidence) / 2)
    if rank is None:
        return None
    ordered = np.sort(np.asarray(samples, np.float64))
    return Interval(float(ordered[rank]), median(ordered), float(ordered[-1 - rank]))


def percentile(samples: Samples, share: float) -> float | None:
    """Return the nearest-rank percentile, the ⌈share · n⌉-th smallest sample; None if n is too small to support it.

    Supported means that MLPerf's early stopping allows at least one discard (`discards`): p90 needs 64 runs,
    p95 130, p99 662. Source of the rank: Hyndman and Fan 1996, Sample Quantiles in Statistical Packages, definition 1.
    """
    if discards(len(samples), share) < 1:
        return None
    # Rounded first: 0.95 · 200 is 190.00000000000003, because 0.95 has no exact binary representation.
    rank = math.ceil(round(share * len(samples), 9))
    return float(np.sort(np.asarray(samples, np.float64))[rank - 1])


def discards(count: int, share: float, confidence: float = PERCENTILE_CONFIDENCE) -> int:
    """Return how many of `count` samples may exceed a bound for it to be reported as the percentile `share`.

    −1 means too few samples. The result is the largest t with P(Binomial(count, 1 − share) ≤ t) ≤ 1 − confidence: if
    more than 1 − share of all runs exceeded the bound, seeing only t or fewer in this sample would be that unlikely.
    Source: MLPerf's early stopping (Reddi et al. 2020, arXiv:1911.02549; loadgen/early_stopping.cc), tolerance d = 0.
    """
    found = _largest_count(count, 1 - share, 1 - confidence)
    return -1 if found is None else found


def fewest_runs(share: float) -> int:
    """Return the smallest number of runs that supports a percentile: 64 for 0.90, 130 for 0.95, 662 for 0.99."""
    count = 1
    while discards(count, share) < 1:
        count += 1
    return count


def spread(samples: Samples) -> float:
    """Return the interquartile range divided by the median, torch.utils.benchmark's measure of noise; 0.1 is 10 %."""
    low, middle, high = np.percentile(np.asarray(samples, np.float64), [25, 50, 75])
    return float((high - low) / middle) if middle else 0.0


def paired_ratio(first: Samples, second: Samples, confidence: float = 0.95) -> Interval | None:
    """Return the median of first[i] / second[i] and its interval, for pairs measured back to back.

    Whatever slows down both halves of a pair cancels out. None for fewer than 6 pairs (at 0.95).
    """
    pairs = np.asarray(first, np.float64) / np.asarray(second, np.float64)
    return median_interval(pairs, confidence)


def ratio_of_medians(first: Samples, second: Samples, confidence: float = 0.95) -> Interval | None:
    """Return median(first) / median(second) and its interval, for two independent sets of samples.

    Each median is in its interval with confidence √confidence, so both are with `confidence`, and the quotients of the
    ends bound the ratio. Conservative. None if either set has fewer than 7 samples (at 0.95).
    """
    each = math.sqrt(confidence)
    above, below = median_interval(first, each), median_interval(second, each)
    if above is None or below is None or below.low <= 0:
        return None
    return Interval(above.low / below.high, above.value / below.value, above.high / below.low)


@lru_cache(maxsize=4096)
def _largest_count(trials: int, probability: float, limit: float) -> int | None:
    """Return the largest k with P(Binomial(trials, probability) ≤ k) ≤ limit; None if even k = 0 is too likely."""
    k = np.arange(trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])  # log k!
    log_density = logs[-1] - logs - logs[::-1] + k * math.log(probability) + (trials - k) * math.log1p(-probability)
    likely = np.cumsum(np.exp(log_density))
    found = int(np.searchsorted(likely, limit, side="right")) - 1
    return found if found >= 0 else None
