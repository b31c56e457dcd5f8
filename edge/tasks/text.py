"""The view of text classes, and the share of correct ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge.tasks import Confusion, Metrics, TaskView
from runtimes.arrays import Array
from runtimes.tasks.text import TextClasses


class TextView(TaskView[TextClasses, int]):
    """Shows classes by name; a label is the index of the correct class."""

    id = "text"

    def describe(self, result: TextClasses) -> str:
        """Format one class per line: score, name and index."""
        return "\n".join(f"  {one.score:7.4f}  {one.label or 'class'} ({one.index})" for one in result.classes)

    def record(self, result: TextClasses, label: int) -> Array:
        """Return [1, 2]: the correct class and the first one."""
        return np.array([[label, result.classes[0].index]], np.float64)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute "top1", the share of texts whose correct class is the first, and "f1"."""
        return accuracy(records)

    def right(self, records: Sequence[Array]) -> Array:
        """Return whether the first class is the correct one."""
        return np.array([record[0, 0] == record[0, 1] for record in records], bool)


def accuracy(records: Sequence[Array]) -> Metrics:
    """Compute "top1" and "f1" from records of the correct and the found class, [1, 2].

    F1 is the harmonic mean of precision and recall of a class, here the mean over the labeled classes; a negative
    class stands for none of them.
    """
    if not records:
        return Metrics(count=0)
    labels, found = np.concatenate(records).astype(np.int64).T
    classes = {int(one): float((found[labels == one] == one).mean()) for one in np.unique(labels)}
    wrong = Counter(
        (label, other) for label, other in zip(labels.tolist(), found.tolist(), strict=True) if label != other
    )
    ordered = sorted(wrong.items(), key=lambda one: (-one[1], one))
    confusions = tuple(Confusion(*pair, times) for pair, times in ordered)
    values = {"top1": float((labels == found).mean())}
    scores = [
        2 * ((labels == one) & (found == one)).sum() / ((labels == one).sum() + (found == one).sum())
        for one in classes
        if one >= 0
    ]
    if scores:
        values["f1"] = float(np.mean(scores))
    return Metrics(count=len(labels), values=values, classes=classes, confusions=confusions)
