"""The view of classification results: the most likely classes by name, and top-1 and top-5 accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.tasks import Confusion, Metrics, TaskView
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.tasks.classification import Classification

if TYPE_CHECKING:
    from PIL.Image import Image

_DRAWN = 3  # classes; more would hide a small picture
_MARGIN = 4  # pixels around the text
_TOP = 5
_NOTHING = -2  # no index; −1 is the background


class ClassificationView(TaskView[Classification, int]):
    """Shows classes by name; a label is the index of the correct class, counted without a background class."""

    id = "classification"

    def describe(self, result: Classification) -> str:
        """Format one class per line: probability, name and index."""
        return "\n".join(f"  {one.probability:7.4f}  {one.label or 'class'} ({one.index})" for one in result.classes)

    def row(self, result: Classification) -> JsonObject:
        """Return "top", the classes under their older key, and "raw", the top value of the unprocessed output."""
        return {"top": result.to_json(), "raw": result.raw}

    def draw(self, image: Image, result: Classification) -> Image:
        """Draw the three most likely classes on a dark band at the top."""
        from PIL import ImageDraw, ImageFont

        drawn = image.convert("RGB")
        size = max(10, min(drawn.size) // 16)
        lines = [f"{one.probability:.0%} {one.label or f'class {one.index}'}" for one in result.classes[:_DRAWN]]
        pen, font = ImageDraw.Draw(drawn, "RGBA"), ImageFont.load_default(size)
        height = size + _MARGIN
        pen.rectangle((0, 0, drawn.width, height * len(lines) + _MARGIN), fill=(0, 0, 0, 160))
        for number, line in enumerate(lines):
            pen.text((_MARGIN, _MARGIN + number * height), line, font=font, fill=(255, 255, 255, 255))
        return drawn

    def record(self, result: Classification, label: int) -> Array:
        """Return [1, 6]: the correct class and the first five; −2 where there are fewer."""
        places = [one.index for one in result.classes[:_TOP]]
        return np.array([[label, *places, *[_NOTHING] * (_TOP - len(places))]], np.float64)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute "top1" and "top5": the share of inputs whose correct class is the first, or among the first five."""
        if not records:
            return Metrics(count=0)
        table = np.concatenate(records).astype(np.int64)
        labels, first = table[:, 0], table[:, 1]
        among = (table[:, 1:] == labels[:, None]).any(axis=1)
        values = {"top1": float((labels == first).mean()), "top5": float(among.mean())}
        classes = {int(one): float((first[labels == one] == one).mean()) for one in np.unique(labels)}
        wrong = Counter((label, other) for label, other in table[:, :2].tolist() if label != other)
        ordered = sorted(wrong.items(), key=lambda one: (-one[1], one))
        return Metrics(
            count=len(table),
            values=values,
            classes=classes,
            confusions=tuple(Confusion(*pair, times) for pair, times in ordered),
        )

    def right(self, records: Sequence[Array]) -> Array:
        """Return whether the first class is the correct one."""
        return np.array([record[0, 0] == record[0, 1] for record in records], bool)
