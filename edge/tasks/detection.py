"""The view of detections: one line per box, and boxes with names drawn on the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.inference.canvas import Canvas
from edge.tasks import TaskView
from runtimes.tasks.detection import Detection, Detections

if TYPE_CHECKING:
    from PIL.Image import Image


class DetectionView(TaskView[Detections, Any]):
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
        """Draw the boxes, the most confident on top, each class in its colour."""
        canvas = Canvas(image)
        for one in reversed(result.boxes):
            canvas.box(one.box, one.index)
            canvas.points(one.points, one.index)
        for one in reversed(result.boxes):
            canvas.tag(one.box, f"{one.label or f'class {one.index}'} {one.score:.0%}", one.index)
        return canvas.image


def _corners(one: Detection) -> str:
    left, top, right, bottom = one.box
    return f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
