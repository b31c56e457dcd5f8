"""The view of detections: one line per box, boxes with names drawn on the picture, and COCO's average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.evaluation.coco import MAX_FOUND, compute_average_precision, object_rows
from edge.evaluation.labeled_objects import LabeledObjects
from edge.inference.canvas import Canvas
from edge.tasks import Metrics, TaskView
from runtimes.arrays import Array
from runtimes.tasks.detection import Detection, Detections

if TYPE_CHECKING:
    from PIL.Image import Image


class DetectionView(TaskView[Detections, LabeledObjects]):
    """Shows boxes with class and confidence."""

    id = "detection"

    def describe(self, result: Detections) -> str:
        """Format one box per line: confidence, class and corners."""
        if not result.boxes:
            return "  nothing found"
        names = [f"{one.label or 'class'} ({one.index})" for one in result.boxes]
        width = max(map(len, names))
        return "\n".join(
            f"  {one.score:6.4f}  {name:<{width}}  {_corners(one)}"
            for one, name in zip(result.boxes, names, strict=True)
        )

    def draw(self, image: Image, result: Detections) -> Image:
        """Draw the boxes, the most confident on top, each class in its color."""
        canvas = Canvas(image)
        for one in reversed(result.boxes):
            canvas.box(one.box, one.index)
            canvas.points(one.points, one.index)
        for one in reversed(result.boxes):
            canvas.tag(one.box, f"{one.label or f'class {one.index}'} {one.score:.0%}", one.index)
        return canvas.image

    def record(self, result: Detections, label: LabeledObjects) -> Array:
        """Return the labeled objects and the most confident boxes of the labeled classes (`edge.evaluation.coco`)."""
        judged = [one for one in result.boxes if one.index in label.classes]
        judged = sorted(judged, key=lambda one: -one.score)[:MAX_FOUND]
        return object_rows(
            [
                *([0, one.index, one.area, *one.box, one.is_crowd] for one in label.objects),
                *([1, one.index, one.score, *one.box, 0] for one in judged),
            ]
        )

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute COCO's "map" (IoU 0.50 to 0.95), "map50", "map75", those by size of the objects, and "recall"."""
        found = compute_average_precision(records)
        return Metrics(count=len(records), values=found.values, classes=found.classes)


def _corners(one: Detection) -> str:
    left, top, right, bottom = one.box
    return f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
