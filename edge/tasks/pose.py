"""The view of poses: one line per key point, and skeletons drawn on the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.inference.canvas import Canvas
from edge.tasks import TaskView
from runtimes.tasks.pose import COCO, Poses

if TYPE_CHECKING:
    from PIL.Image import Image

_DRAWN = 0.2  # the score from which a key point is drawn
# Pairs of key points of COCO that a line joins.
_BONES = (
    ("left ear", "left eye"),
    ("left eye", "nose"),
    ("nose", "right eye"),
    ("right eye", "right ear"),
    ("left shoulder", "right shoulder"),
    ("left shoulder", "left elbow"),
    ("left elbow", "left wrist"),
    ("right shoulder", "right elbow"),
    ("right elbow", "right wrist"),
    ("left shoulder", "left hip"),
    ("right shoulder", "right hip"),
    ("left hip", "right hip"),
    ("left hip", "left knee"),
    ("left knee", "left ankle"),
    ("right hip", "right knee"),
    ("right knee", "right ankle"),
)
_SKELETON = tuple((COCO.index(start), COCO.index(end)) for start, end in _BONES)


class PoseView(TaskView[Poses, Any]):
    """Shows persons by their key points."""

    id = "pose"

    def describe(self, result: Poses) -> str:
        """Format each person: confidence and box, then one key point per line."""
        lines = []
        for one in result.poses:
            left, top, right, bottom = one.box
            lines.append(f"  {one.score:6.4f}  person  x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}")
            lines += [f"    {p.score:6.4f}  {p.name:<14}  x {p.x:.0f}, y {p.y:.0f}" for p in one.keypoints]
        return "\n".join(lines) or "  nobody found"

    def draw(self, image: Image, result: Poses) -> Image:
        """Draw each person's skeleton in its own colour."""
        canvas = Canvas(image)
        for number, one in enumerate(result.poses):
            seen = [point.score >= _DRAWN for point in one.keypoints]
            places = [(point.x, point.y) for point in one.keypoints]
            for start, end in _SKELETON if len(places) == len(COCO) else ():
                if seen[start] and seen[end]:
                    canvas.line(places[start], places[end], number)
            canvas.points([place for place, is_seen in zip(places, seen, strict=True) if is_seen], number)
            canvas.tag(one.box, f"person {one.score:.0%}", number)
        return canvas.image
