"""The view of poses: one line per key point, and skeletons drawn on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.evaluation.coco import POINTS, compute_average_precision, object_rows
from edge.evaluation.labeled_objects import LabeledObjects
from edge.inference.canvas import Canvas
from edge.tasks import Metrics, TaskView
from runtimes.arrays import Array
from runtimes.errors import InputError
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
# How far people place COCO's key points from one another, as a share of the person's size, in the order of `COCO`.
# Source: cocodataset.org/#keypoints-eval, section 1.3.
_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107),
    *(0.087, 0.087, 0.089, 0.089),
)
_PERSONS = 20  # of a picture that count, the most confident ones; COCO's own limit
_SKELETON = tuple((COCO.index(start), COCO.index(end)) for start, end in _BONES)


class PoseView(TaskView[Poses, LabeledObjects]):
    """Shows persons by their key points."""

    id = "pose"

    def describe(self, result: Poses) -> str:
        """Format each person: confidence and box, then one key point per line."""
        lines = []
        for one in result.poses:
            left, top, right, bottom = one.box
            lines.append(f"  {one.score:6.4f}  {one.name}  x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}")
            lines += [f"    {p.score:6.4f}  {p.name:<14}  x {p.x:.0f}, y {p.y:.0f}" for p in one.keypoints]
        return "\n".join(lines) or "  nobody found"

    def draw(self, image: Image, result: Poses) -> Image:
        """Draw each person's skeleton in its own color."""
        canvas = Canvas(image)
        for number, one in enumerate(result.poses):
            seen = [point.score >= _DRAWN for point in one.keypoints]
            places = [(point.x, point.y) for point in one.keypoints]
            for start, end in _SKELETON if len(places) == len(COCO) else ():
                if seen[start] and seen[end]:
                    canvas.line(places[start], places[end], number)
            canvas.points([place for place, is_seen in zip(places, seen, strict=True) if is_seen], number)
            canvas.tag(one.box, f"{one.name} {one.score:.0%}", number)
        return canvas.image

    def record(self, result: Poses, label: LabeledObjects) -> Array:
        """Return the labeled persons and the most confident poses of the labeled classes, see `edge.evaluation.coco`.

        Raises InputError if the labels have another number of key points.
        """
        judged = [one for one in result.poses if (one.index or 0) in label.classes]
        poses = sorted(judged, key=lambda one: -one.score)[:_PERSONS]
        columns = max((len(one.points) for one in label.objects), default=3 * len(COCO))
        rows: list[list[float]] = []
        for one in label.objects:
            rows.append([0, one.index, one.area, *one.box, one.is_crowd, *(one.points or (0.0,) * columns)])
        for pose in poses:
            points = [number for point in pose.keypoints for number in (point.x, point.y, point.score)]
            if len(points) != columns and label.objects:
                what = f"the labels have {columns // 3} key points, the model has {len(points) // 3}"
                raise InputError(what, "use a data set with the model's key points")
            rows.append([1, pose.index or 0, pose.score, *pose.box, 0, *points])
        return object_rows(rows, POINTS + (len(rows[0][POINTS:]) if rows else columns))

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute COCO's "oks_map" (OKS 0.50 to 0.95), "oks_map50", "oks_map75", and "oks_recall".

        The tolerance of key points other than COCO's is that of ultralytics: one divided by their number.
        """
        count = max(((record.shape[1] - POINTS) // 3 for record in records if len(record)), default=len(COCO))
        found = compute_average_precision(records, _SIGMAS if count == len(COCO) else (1 / count,) * count)
        return Metrics(count=len(records), values=found.values, classes=found.classes)
