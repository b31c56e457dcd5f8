"""Compare integer and boolean outputs as labels: how many are equal, over all and for each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject

_JUDGED_FROM = 100  # elements that a label, or the whole output, needs for its share to mean something
# Precision → the share of equal elements over all, and for each label. Ties are left to fp32: two equal scores may
# be ordered either way.
_SHARES: Mapping[str, tuple[float, float]] = {"fp32": (0.9999, 0.999), "fp16": (0.999, 0.99)}
_QUANTIZED = (0.97, 0.8)


@dataclass(frozen=True)
class LabelReport:
    """The verdict on an output of labels.

    share: The share of equal elements.
    limit: The least share that passes.
    failures: What fails, the worst label by name.
    worst: The worst label, how many of its elements are equal, and how many it has; None if none has enough.
    """

    share: float
    limit: float
    failures: tuple[str, ...]
    worst: tuple[int, float, int] | None = None

    def as_dict(self) -> JsonObject:
        """Return the report as JSON."""
        label, kept, count = self.worst or (None, None, None)
        return {"equal": self.share, "limit": self.limit, "worst_label": label, "kept": kept, "elements": count}


def judge_labels(precision: str, expected: Array, given: Array) -> LabelReport:
    """Compare labels of the same shape [n, ...]."""
    overall, each = _SHARES.get(precision, _QUANTIZED)
    if not expected.size:
        return LabelReport(1.0, overall, ())
    if expected.size < _JUDGED_FROM:  # as with the top-1 of a classifier
        overall = min(overall, each)
    labels, places = np.unique(expected.reshape(-1), return_inverse=True)
    equal = (expected == given).reshape(-1)
    counts = np.bincount(places.reshape(-1))
    kept = np.bincount(places.reshape(-1), weights=equal) / counts
    share = float(equal.mean())
    enough = np.flatnonzero(counts >= _JUDGED_FROM)
    worst, failures = None, []
    if len(enough):
        place = enough[np.argmin(kept[enough])]
        worst = (int(labels[place]), float(kept[place]), int(counts[place]))
    if worst is not None and worst[1] < each:
        failures.append(
            f"label {worst[0]}: {_percent(worst[1])} of {worst[2]:,} elements kept, at least {_percent(each)}"
        )
    if share < overall:
        failures.append(f"{_percent(share)} of {equal.size:,} labels are equal, at least {_percent(overall)}")
    return LabelReport(share=share, limit=overall, failures=tuple(failures), worst=worst)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
