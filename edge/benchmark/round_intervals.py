"""Intervals for the ratio of two times, from one value for each round.

Runs within one process vary less than processes do, so a round counts as one value, however many runs it contains.
Values are logarithms: a ratio is a difference. All intervals are Yuen's: the mean without the fastest and slowest fifth
of the values, so that a disturbed round does not decide, with Student's t.

Sources: K. K. Yuen, The two-sample trimmed t for unequal population variances, Biometrika 61 (1974); R. R. Wilcox,
Introduction to Robust Estimation and Hypothesis Testing, 4th edition 2017, sections 5.3 and 5.9 (paired values).
`python tests/benchmarks/calibration.py` shows how often they are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from runtimes.arrays import Array
from runtimes.measurement.statistics import Interval

# Between two sessions on the same machine (another hour, another boot), all rounds shift alike. No number of rounds
# in one session shows by how much, so that this standard deviation of the logarithm is added.
SESSION_SD = 0.01
_TRIMMED = 0.2
# With fewer values Student's t is too optimistic about a trimmed mean: 6 to 7 % false instead of 5 % for five.
_FEWEST_TRIMMED = 8


def paired_ratio(new: Sequence[float], old: Sequence[float], confidence: float) -> Interval | None:
    """Return new / old for alternating rounds: new[i] and old[i] were measured one after the other. None below 2
    rounds.

    Slow changes, such as the clock or other programs, affect both halves of a pair and cancel out.
    """
    if len(new) < 2:
        return None
    mean, variance, kept = _trim(np.log(new) - np.log(old))
    return _interval(mean, math.sqrt(variance) * t_quantile(confidence, kept - 1))


def separate_ratio(new: Sequence[float], old: Sequence[float], confidence: float) -> Interval | None:
    """Return new / old for two runs at different times, each with at least 2 rounds; else None."""
    if min(len(new), len(old)) < 2:
        return None
    mean, variance, kept = _trim(np.log(new))
    other_mean, other_variance, other_kept = _trim(np.log(old))
    rounds = variance + other_variance
    # Welch's degrees of freedom.
    weights = variance**2 / (kept - 1) + other_variance**2 / (other_kept - 1)
    freedom = rounds**2 / weights if weights else math.inf
    half = math.hypot(
        math.sqrt(rounds) * t_quantile(confidence, freedom),
        math.sqrt(2) * SESSION_SD * t_quantile(confidence, math.inf),
    )
    return _interval(mean - other_mean, half)


def _trim(values: Array) -> tuple[float, float, int]:
    """Return the trimmed mean, its variance, and the number of values that were kept."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(_TRIMMED * len(ordered)) if len(ordered) >= _FEWEST_TRIMMED else 0
    kept = len(ordered) - 2 * cut
    mean = float(ordered[cut : cut + kept].mean())
    winsorized = np.clip(ordered, ordered[cut], ordered[cut + kept - 1])
    squares = float(((winsorized - winsorized.mean()) ** 2).sum())
    return mean, squares / (kept * (kept - 1)), kept


def _interval(mean: float, half: float) -> Interval:
    return Interval(math.exp(mean - half), math.exp(mean), math.exp(mean + half))


@lru_cache(maxsize=4096)
def t_quantile(confidence: float, freedom: float) -> float:
    """Return the t with P(|T| < t) = confidence, for Student's distribution with `freedom` degrees of freedom."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        low, high = high, 2 * high
    for _ in range(60):  # halves the bracket to the precision of a float
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: float) -> float:
    """Return P(|T| < t)."""
    if freedom > 1e6:  # the normal distribution, to more digits than matter
        return math.erf(t / math.sqrt(2))
    return 1 - _beta_share(freedom / (freedom + t * t), freedom / 2, 0.5)


def _beta_share(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b).

    By the continued fraction of NIST's Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method.
    """
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, use the symmetry 8.17.4
        return 1 - _beta_share(1 - x, b, a) if x < 1 else 1.0
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    top, bottom = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = bottom
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            top, bottom = 1 + step / top, 1 / (1 + step * bottom)
            fraction *= top * bottom
        if abs(top * bottom - 1) < 1e-14:
            break
    return math.exp(logs) / a * fraction
