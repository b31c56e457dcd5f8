"""Fit the latencies of models on one setup to the contents of their graphs, and measure the errors of the fit.

Each kind of multiply-add, each element that is written, each parameter that is read and each layer has a non-negative
cost. Costs are fitted to minimize relative errors, because a model of 1 ms matters as much as one of 100 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from runtimes.arrays import Array

_COVERED = 0.90
# Fewer errors than these have no meaningful 90 % quantile.
FEWEST_FOR_BAND = 15


@dataclass(frozen=True, kw_only=True)
class KnownLatency:
    """A model with a known latency: its family, the contents of its graph, and the latency in ms."""

    family: str
    features: tuple[float, ...]
    latency_ms: float


class Fit:
    """A fit to the samples of one setup. All errors are logarithms of true / estimated."""

    def __init__(self, samples: Sequence[KnownLatency]) -> None:
        self.samples = tuple(samples)
        # Without a scale the costs of layers and of multiply-adds differ by a factor of a million.
        rows = np.array([one.features for one in samples], np.float64)
        self._scale = rows.max(axis=0).clip(min=1.0)
        self._costs = _costs(rows / self._scale, [one.latency_ms for one in samples])

    def latency_ms(self, features: Sequence[float]) -> float:
        """Return the estimated latency."""
        return float(np.array(features) / self._scale @ self._costs)

    @cached_property
    def model_errors(self) -> list[float]:
        """The error of each sample when the other samples are fitted without it."""
        return self._errors([str(place) for place in range(len(self.samples))])

    @cached_property
    def family_errors(self) -> list[float]:
        """The error of each sample when all models of its family are left out. Empty for a single family."""
        return self._errors([one.family for one in self.samples])

    def _errors(self, keys: Sequence[str]) -> list[float]:
        """Return the error of each sample when all samples with its key are left out."""
        errors: dict[int, float] = {}
        for left in dict.fromkeys(keys):
            others = [one for one, other in zip(self.samples, keys, strict=True) if other != left]
            if not others:
                return []
            fit = Fit(others)
            for place, one in enumerate(self.samples):
                if keys[place] == left:
                    errors[place] = float(np.log(one.latency_ms / max(fit.latency_ms(one.features), 1e-9)))
        return [errors[place] for place in range(len(keys))]


def median_error(errors: Sequence[float]) -> float:
    """Return the median of the relative errors: 0.05 is 5 %."""
    return float(np.median(np.abs(np.expm1(errors))))


def band(errors: Sequence[float]) -> float | None:
    """Return the factor within which 90 % of the errors lie; None for too few of them."""
    if len(errors) < FEWEST_FOR_BAND:
        return None
    ordered = np.sort(np.abs(errors))
    # The rank of conformal prediction: a new error is not larger with a probability of at least 90 %.
    rank = min(int(np.ceil(_COVERED * (len(ordered) + 1))), len(ordered)) - 1
    return float(np.exp(ordered[rank]))


def _costs(rows: Array, times: Sequence[float]) -> Array:
    """Return the costs x ≥ 0 with the least sum of (row·x / time − 1)².

    The active-set method of Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.
    """
    matrix = rows / np.array(times)[:, None]
    wanted = np.ones(len(times))
    count = matrix.shape[1]
    costs = np.zeros(count)
    used = np.zeros(count, bool)
    for _ in range(3 * count):
        gain = matrix.T @ (wanted - matrix @ costs)
        if used.all() or gain[~used].max() <= 1e-10:
            break
        used[np.argmax(np.where(used, -np.inf, gain))] = True
        while True:
            trial = np.zeros(count)
            trial[used] = np.linalg.lstsq(matrix[:, used], wanted, rcond=None)[0]
            negative = used & (trial <= 0)
            if not negative.any():
                break
            step = (costs[negative] / (costs[negative] - trial[negative])).min()
            costs = costs + step * (trial - costs)
            used &= costs > 1e-12
        costs = trial
    return costs
