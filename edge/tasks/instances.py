"""The view of instances: boxes and tinted outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.evaluation.coco import FOUND, MASK, MAX_FOUND, compute_average_precision
from edge.evaluation.instance_masks import compare_masks
from edge.evaluation.labeled_objects import LabeledObjects
from edge.inference.canvas import Canvas
from edge.tasks import Metrics, TaskView
from edge.tasks.detection import DetectionView
from runtimes.arrays import Array
from runtimes.decoders.boxes import Detections
from runtimes.tasks.instances import Instances

if TYPE_CHECKING:
    from PIL.Image import Image


class InstancesView(TaskView[Instances, LabeledObjects]):
    """Shows objects as the view of detections, and tints what is inside their outlines."""

    id = "instances"

    def describe(self, result: Instances) -> str:
        """Format one object per line: confidence, class and corners."""
        return DetectionView().describe(result.boxes)

    def draw(self, image: Image, result: Instances) -> Image:
        """Tint the objects, the most confident on top, and draw their boxes."""
        canvas = Canvas(image)
        for one in reversed(result.instances):
            canvas.polygon(one.polygon, one.detection.index)
        return DetectionView().draw(canvas.image, result.boxes)

    def record(self, result: Instances, label: LabeledObjects) -> Array:
        """Return the boxes as the view of detections does, and the areas and IoUs of the masks."""
        judged = [one for one in result.instances if one.detection.index in label.classes]
        judged = sorted(judged, key=lambda one: -one.detection.score)[:MAX_FOUND]
        boxes = DetectionView().record(Detections(tuple(one.detection for one in judged)), label)
        labeled = np.array([[bool(one.outline)] for one in label.objects], np.float64).reshape(-1, 1)
        areas, ious = compare_masks(
            [tuple(number for point in one.polygon for number in point) for one in judged],
            [one.outline or _corners(one.box) for one in label.objects],
            [one.is_crowd for one in label.objects],
            label.size,
        )
        above = np.concatenate([labeled, np.zeros((len(labeled), len(labeled)))], axis=1)
        return np.concatenate([boxes, np.concatenate([above, np.concatenate([areas[:, None], ious], axis=1)])], axis=1)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute COCO's metrics of masks, such as "mask_map", if the labels have outlines; then those of boxes."""
        boxes = compute_average_precision(records)
        if not any((record[record[:, FOUND] == 0, MASK] > 0).any() for record in records):
            return Metrics(count=len(records), values=boxes.values, classes=boxes.classes)
        masks = compute_average_precision(records, of_masks=True)
        return Metrics(count=len(records), values={**masks.values, **boxes.values}, classes=masks.classes)


def _corners(box: tuple[float, float, float, float]) -> tuple[tuple[float, ...]]:
    left, top, right, bottom = box
    return ((left, top, right, top, right, bottom, left, bottom),)
