"""The view of classification results: the most likely classes by name, and top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge.tasks import Metrics, TaskView
from runtimes.artifact.json_fields import JsonObject
from runtimes.tasks.classification import Classification

if TYPE_CHECKING:
    from PIL.Image import Image

_DRAWN = 3  # classes; more would hide a small picture
_MARGIN = 4  # pixels around the text


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

    def score(self, results: Iterable[tuple[Classification, int]]) -> Metrics:
        """Compute "top1" and "top5": the share of inputs whose correct class is the first, or among the first five."""
        count = first = among = 0
        for result, label in results:
            places = [one.index for one in result.classes[:5]]
            count += 1
            first += places[:1] == [label]
            among += label in places
        return Metrics(count, {"top1": first / count, "top5": among / count} if count else {})
