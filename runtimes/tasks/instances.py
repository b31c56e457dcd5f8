"""Instance segmentation: boxes around objects, each with its outline."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.artifact.manifest import TensorSpec
from runtimes.decoders.boxes import (
    Candidates,
    Detection,
    Detections,
    Limits,
    are_shares,
    corners_of_centers,
    in_pixels,
    layout_error,
    single,
    suppress,
)
from runtimes.decoders.polygons import area, contains, outline
from runtimes.decoders.yolo import YoloDecoder, cell_boxes
from runtimes.model_files.facts import ModelFacts, class_names
from runtimes.task import Agreement, Placement, Result, Task
from runtimes.tasks.detection import DetectionTask
from runtimes.tensors import dequantize

_BOX, _ROW = 4, 6
_WITH_OBJECTNESS = 3  # boxes per cell in v5, which has the confidence that there is any object before the scores
_FINER = 4  # the mask's grid is this much finer than the prototypes', so that outlines are not jagged
_SAMPLES = 48  # points per side, to compare two outlines
_MASK_IOU = 0.8  # of results that agree


@dataclass(frozen=True)
class Instance:
    """A detected object, and the outline (x, y) of its largest part in pixels."""

    detection: Detection
    polygon: tuple[tuple[float, ...], ...]

    def to_json(self) -> JsonObject:
        """Return the keys of a detection, and "polygon"."""
        return {**self.detection.to_json(), "polygon": [list(point) for point in self.polygon]}


@dataclass(frozen=True)
class Instances(Result):
    """The detected objects, most confident first.

    size: Height and width of the picture, or of the model's input.
    """

    instances: tuple[Instance, ...]
    size: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def boxes(self) -> Detections:
        """The objects without their outlines."""
        return Detections(tuple(one.detection for one in self.instances))

    @property
    def masks(self) -> Array:
        """Which pixels are inside each object's outline: [objects, height, width] of bool."""
        found = np.zeros((len(self.instances), *self.size), bool)
        for mask, one in zip(found, self.instances):
            if one.polygon:
                corners = np.asarray(one.polygon)
                left, top = np.clip(np.floor(corners.min(axis=0)), 0, None).astype(int)
                part = mask[top : int(np.ceil(corners[:, 1].max())), left : int(np.ceil(corners[:, 0].max()))]
                places = np.indices(part.shape).reshape(2, -1).T[:, ::-1] + (left + 0.5, top + 0.5)
                part[:] = contains(corners, places).reshape(part.shape)
        return found

    def to_supervision(self) -> Any:
        """Return the objects as `supervision.Detections`, with their masks.

        Raises EngineMissingError if that library is not installed.
        """
        found = self.boxes.to_supervision()
        found.mask = self.masks
        return found

    def to_json(self) -> JsonValue:
        """Return [{"label", "index", "score", "box", "polygon": [[x, y]]}]."""
        return [one.to_json() for one in self.instances]

    def in_picture(self, placement: Placement) -> Instances:
        """Map to pixels of the picture, clip to it, and drop the objects outside."""
        found = []
        for one in self.instances:
            boxes = Detections((one.detection,)).in_picture(placement).boxes
            points = placement.to_picture(np.asarray(one.polygon).reshape(-1, 2))
            places = np.clip(points, 0, placement.size).tolist()
            found += [Instance(box, tuple(map(tuple, places))) for box in boxes]
        return Instances(tuple(found), (placement.size[1], placement.size[0]))


@dataclass(frozen=True)
class YoloInstances(YoloDecoder[Instances]):
    """Decodes YOLO-seg: for each cell a box, a score per class and weights of prototypes, whose sum is the mask.

    In v5, objectness stands before the scores. With the suppression inside, rows are corners, score, class and weights.

    rows, prototypes: The outputs' specs: [1, 4 + classes + weights, cells], and [1, weights, height, width].
    size: Height and width of the input.
    weights: The number of prototypes.
    axis: The axis of the prototypes, 1 or 3.
    labels: The class names.
    limits: Which boxes to keep.
    """

    rows: TensorSpec
    prototypes: TensorSpec
    size: tuple[int, int]
    weights: int
    axis: int = 1
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> YoloInstances | None:
        """Accept two outputs, of which one has prototypes in the sides of the input divided by the same stride."""
        size = model.picture_size
        if size is None or len(model.outputs) != 2:
            return None
        rows, prototypes = sorted(model.outputs, key=lambda spec: len(spec.shape))
        shape = prototypes.shape
        if (len(rows.shape), len(shape)) != (3, 4) or any(isinstance(side, str) for side in shape[1:]):
            return None
        axis = next((axis for axis in (1, 3) if _is_grid(shape[2:] if axis == 1 else shape[1:3], size)), None)
        if axis is None:
            return None
        weights, sides = int(shape[axis]), [side for side in rows.shape[1:] if isinstance(side, int)]
        if weights < 2 or (sides and min(sides) < _BOX + 1 + weights):
            return None
        labels, words = class_names(model, _classes(rows, weights, size))
        return cls(rows, prototypes, size, weights, axis, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Instances:
        """Return the best objects of each class. Raises InputError for outputs of another layout."""
        name = self.rows.name
        rows = single(dequantize(outputs[name], self.rows.quantization), name, 2)
        planes = dequantize(outputs[self.prototypes.name], self.prototypes.quantization)
        planes = single(planes, self.prototypes.name, 3)
        planes = planes if self.axis == 1 else planes.transpose(2, 0, 1)
        is_selected = rows.shape[1] == _ROW + self.weights and not cell_boxes(len(rows), self.size)
        rows = rows if is_selected or rows.shape[0] > rows.shape[1] else rows.T
        if rows.shape[1] <= _BOX + self.weights or len(planes) != self.weights:
            raise layout_error(name, rows, "boxes with masks")
        kept = self._keep(rows, is_selected)
        boxes = kept.detections(self.limits, self.labels).boxes
        chosen = rows[kept.points[:, 0, 0].astype(np.intp)] if kept.points is not None else rows[:0]
        masks = (self._polygon(box, row[-self.weights :], planes) for box, row in zip(boxes, chosen))
        found = tuple(Instance(replace(box, points=()), mask) for box, mask in zip(boxes, masks))
        return Instances(found, self.size)

    def _keep(self, rows: Array, is_selected: bool) -> Candidates:
        """Return the boxes to keep; the number of each one's row stands in place of its key points."""
        boxes = rows[:, :_BOX] if is_selected else corners_of_centers(rows[:, :_BOX])
        boxes = in_pixels(boxes, self.size) if are_shares(rows[:, :_BOX]) else boxes
        scores = rows[:, _BOX : _BOX + 1] if is_selected else self._scores(rows)
        best = np.rint(rows[:, _BOX + 1]).astype(np.intp) if is_selected else scores.argmax(axis=1)
        numbers = np.arange(len(rows), dtype=np.float64).reshape(-1, 1, 1)
        found = Candidates(boxes, scores.max(axis=1), best, np.repeat(numbers, 2, axis=2)).confident(self.limits)
        return found if is_selected else found.take(suppress(found.boxes, found.classes, self.limits))

    def _scores(self, rows: Array) -> Array:
        """Return the scores of the classes [cells, classes]."""
        scores: Array = rows[:, _BOX : -self.weights]
        if cell_boxes(len(rows), self.size) == _WITH_OBJECTNESS:
            scores = scores[:, :1] * scores[:, 1:]
        return scores

    def _polygon(self, box: Detection, weights: Array, planes: Array) -> tuple[tuple[float, ...], ...]:
        """Return the outline of a mask within its box, in pixels of the input."""
        _, height, width = planes.shape
        step = np.asarray([self.size[1] / width, self.size[0] / height])  # input pixels per prototype pixel
        low = np.clip(np.floor(np.asarray(box.box[:2]) / step * _FINER), 0, None).astype(int)
        high = np.ceil(np.asarray(box.box[2:]) / step * _FINER).astype(int)
        high = np.minimum(high, np.asarray([width, height]) * _FINER)
        if (high <= low).any():
            return ()
        mask = np.tensordot(weights, planes, 1)
        mask = _interpolate(mask, np.arange(low[1], high[1]), 0)
        mask = _interpolate(mask, np.arange(low[0], high[0]), 1)
        points = (outline(mask > 0) + low) / _FINER * step
        points = np.clip(points, box.box[:2], box.box[2:])
        return tuple(map(tuple, points.tolist()))


def _interpolate(grid: Array, places: Array, axis: int) -> Array:
    """Interpolate linearly along an axis at the centers of the finer grid's pixels `places`."""
    centers = np.clip((places + 0.5) / _FINER - 0.5, 0, grid.shape[axis] - 1)
    low = np.floor(centers).astype(np.intp)
    high = np.minimum(low + 1, grid.shape[axis] - 1)
    share = (centers - low).reshape((-1, 1) if axis == 0 else (1, -1))
    found: Array = np.take(grid, low, axis) * (1 - share) + np.take(grid, high, axis) * share
    return found


class InstancesTask(Task[Instances]):
    """Finds objects in a picture, and their outlines."""

    id: ClassVar[str] = "instances"
    rank: ClassVar[int] = 15
    resize: ClassVar[str] = "stretch"
    decoders = (YoloInstances,)

    def compare(self, expected: Instances, actual: Instances) -> Agreement:
        """Results agree if their boxes do, as for detection, and matched outlines have a mean IoU of 0.8."""
        boxes = DetectionTask().compare(expected.boxes, actual.boxes)
        ious = []
        for one in expected.instances:
            same = [other for other in actual.instances if other.detection.index == one.detection.index]
            ious.append(max((polygon_iou(one.polygon, other.polygon) for other in same), default=0.0))
        mean = float(np.mean(ious)) if ious else 1.0
        metrics = {**boxes.metrics, "mask_iou": mean}
        return Agreement(boxes.agrees and mean >= _MASK_IOU, metrics, f"{boxes.message}, mean mask IoU {mean:.3f}")


def polygon_iou(one: tuple[tuple[float, ...], ...], other: tuple[tuple[float, ...], ...]) -> float:
    """Return the intersection over union of two outlines, sampled on a grid over both."""
    first, second = np.asarray(one).reshape(-1, 2), np.asarray(other).reshape(-1, 2)
    if not area(first) or not area(second):
        return float(one == other)
    both = np.concatenate([first, second])
    (left, top), (right, bottom) = both.min(axis=0), both.max(axis=0)
    shares = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    points = np.stack(np.meshgrid(left + shares * (right - left), top + shares * (bottom - top)), axis=-1).reshape(
        -1, 2
    )
    inside, there = contains(first, points), contains(second, points)
    return float((inside & there).sum() / max(1, (inside | there).sum()))


def _classes(rows: TensorSpec, weights: int, size: tuple[int, int]) -> int | None:
    """Return the number of classes of rows with a score for each; None for rows with a class, and free sizes."""
    first, second = rows.shape[1:]
    numbers = first if isinstance(second, int) and cell_boxes(second, size) else second
    cells = second if numbers is first else first
    if not isinstance(numbers, int) or not isinstance(cells, int) or not cell_boxes(cells, size):
        return None
    return numbers - _BOX - weights - (cell_boxes(cells, size) == _WITH_OBJECTNESS)


def _is_grid(sides: tuple[int | str, ...], size: tuple[int, int]) -> bool:
    height, width = sides
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 2:
        return False
    return size[0] % height == 0 and size[1] % width == 0 and size[0] // height == size[1] // width <= 16
