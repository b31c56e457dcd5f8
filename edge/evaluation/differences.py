"""Decide whether one model is really worse than another: the difference of a metric on the same inputs.

Both models answer the same inputs, so what makes an input hard cancels out. The interval contains what is left: that
other inputs of the same kind would have given another difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.tasks import TaskView
from runtimes.arrays import Array
from runtimes.measurement.statistics import Interval

BETTER, WORSE, NOT_SHOWN, TOO_FEW = "better", "worse", "no difference shown", "too few inputs"
VERDICTS = (BETTER, WORSE, NOT_SHOWN, TOO_FEW)
CONFIDENCE = 0.95
_Z = 1.959964  # of the normal distribution at 95 %, two-sided
_GROUPS = 20  # of inputs, of which the jackknife leaves out one at a time
_T = 2.093024  # of Student's distribution with 19 degrees of freedom at 95 %, two-sided
_STEPS = 60  # halvings of the interval 1, down to the precision of a double


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of one model minus that of the baseline, on the inputs that both answered.

    metric: The metric's name.
    value: The difference, −1 to 1.
    interval: Where the difference lies with a confidence of 95 %; None for too few inputs.
    verdict: One of VERDICTS.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    verdict: str


def compare_records(
    view: TaskView[Any, Any], metric: str, baseline: Sequence[Array], other: Sequence[Array]
) -> Difference | None:
    """Compare the records of the same inputs by two models; None if the metric has no meaning for these inputs."""
    values = [view.metrics(records).values.get(metric) for records in (baseline, other)]
    if values[0] is None or values[1] is None:
        return None
    value = values[1] - values[0]
    right = view.right(baseline), view.right(other)
    if right[0] is not None and right[1] is not None:
        lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        found: Interval | None = difference_of_shares(lost, gained, len(baseline))
    else:
        found = jackknife(view, metric, baseline, other)
    return Difference(
        metric=metric, value=value, interval=(found.low, found.high) if found else None, verdict=_verdict(found)
    )


def _verdict(found: Interval | None) -> str:
    if found is None:
        return TOO_FEW
    if found.low <= 0 <= found.high:
        return NOT_SHOWN
    return BETTER if found.low > 0 else WORSE


def difference_of_shares(lost: int, gained: int, count: int) -> Interval:
    """Return by how much the share of right answers changes, with its 95 % interval.

    lost: How many inputs only the baseline answers correctly.
    gained: How many inputs only the other model answers correctly.

    The interval contains each difference that the score test does not reject. Unlike the usual one, it has a width
    even if both models give the same answers, because other inputs might have told them apart.
    Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design, Statistics in Medicine 17 (1998) 891-908.
    """
    value = (gained - lost) / count

    def end(outside: float) -> float:
        inside = value
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            if abs(_score(middle, lost, gained, count)) <= _Z:
                inside = middle
            else:
                outside = middle
        return inside

    return Interval(end(-1.0), value, end(1.0))


def _score(difference: float, lost: int, gained: int, count: int) -> float:
    """Return Tango's statistic for a true difference: about normal, 0 where it is the observed one."""
    linear = -gained - lost + (2 * count - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    likely = (math.sqrt(max(0.0, linear**2 - 8 * count * constant)) - linear) / (4 * count)
    variance = count * (2 * likely + difference * (1 - difference))
    distance = gained - lost - count * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def jackknife(
    view: TaskView[Any, Any], metric: str, baseline: Sequence[Array], other: Sequence[Array]
) -> Interval | None:
    """Return the difference of any metric with its 95 % interval; None for fewer inputs than groups.

    The metric is computed again without each of 20 groups of the inputs.
    Source: B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, sections 3.1 and 2.2.
    """
    if len(baseline) < _GROUPS:
        return None

    def without(group: int | None) -> float | None:
        kept = [place for place in range(len(baseline)) if group is None or place % _GROUPS != group]
        pair = [view.metrics([records[i] for i in kept]).values.get(metric) for records in (baseline, other)]
        return None if pair[0] is None or pair[1] is None else pair[1] - pair[0]

    value, parts = without(None), [without(group) for group in range(_GROUPS)]
    known = np.array([part for part in parts if part is not None], np.float64)
    if value is None or len(known) < _GROUPS:
        return None
    error = float(np.sqrt((_GROUPS - 1) / _GROUPS * ((known - known.mean()) ** 2).sum()))
    return Interval(value - _T * error, value, value + _T * error)
