"""The view of instances: boxes and tinted outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.evaluation.labeled_objects import LabeledObjects
from edge.inference.canvas import Canvas
from edge.tasks import Metrics, TaskView
from edge.tasks.detection import DetectionView
from runtimes.arrays import Array
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
        """Return the boxes, as the view of detections does."""
        return DetectionView().record(result.boxes, label)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute the metrics of the boxes: outlines are not scored."""
        return DetectionView().metrics(records)
