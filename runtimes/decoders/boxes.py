"""Detected boxes, and the steps that all detectors share: units, overlap, non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Sequence, TypeVar, cast

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import EngineMissingError, InputError
from runtimes.model_files.facts import check_named
from runtimes.task import DecodeOptions, Decoder, Placement, R, Result

_MAX_CANDIDATES = 30_000  # boxes that enter the suppression, the most confident ones; ultralytics has the same limit
_MAX_SHARE = 2.0  # boxes whose sides are all at most this are shares of the input, not pixels


@dataclass(frozen=True)
class Detection:
    """A detected object.

    index: The class's index, from 0, without a background class.
    label: The class's name; None if it has none.
    score: The confidence, 0 to 1.
    box: Left, top, right and bottom, in pixels.
    points: Key points (x, y) in pixels, such as eyes; empty if the model gives none.
    """

    index: int
    label: str | None
    score: float
    box: tuple[float, ...]
    points: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> JsonObject:
        """Return "label", "index", "score", "box", and "points" if there are any."""
        facts: JsonObject = {"label": self.label, "index": self.index, "score": self.score, "box": list(self.box)}
        if self.points:
            facts["points"] = [list(point) for point in self.points]
        return facts


@dataclass(frozen=True)
class Detections(Result):
    """The detected objects, most confident first."""

    boxes: tuple[Detection, ...]

    def to_json(self) -> JsonValue:
        """Return [{"label", "index", "score", "box": [x0, y0, x1, y1]}]."""
        return [one.to_json() for one in self.boxes]

    def to_supervision(self) -> Any:
        """Return the boxes as `supervision.Detections`, with the class names under "class_name".

        Raises EngineMissingError if that library is not installed.
        """
        try:
            library = import_module("supervision")
        except ImportError:
            what = "to_supervision() needs the library supervision, which is not installed"
            raise EngineMissingError(what, "pip install supervision") from None
        return library.Detections(
            xyxy=np.asarray([one.box for one in self.boxes], np.float32).reshape(-1, 4),
            confidence=np.asarray([one.score for one in self.boxes], np.float32),
            class_id=np.asarray([one.index for one in self.boxes], np.int64),
            data={"class_name": np.asarray([one.label or f"class {one.index}" for one in self.boxes], np.str_)},
        )

    def in_picture(self, placement: Placement) -> Detections:
        """Map to pixels of the picture, clip the boxes to it, and drop those outside."""
        found = (_in_picture(one, placement) for one in self.boxes)
        return Detections(tuple(one for one in found if one.box[0] < one.box[2] and one.box[1] < one.box[3]))


def _in_picture(one: Detection, placement: Placement) -> Detection:
    corners = placement.to_picture(np.asarray(one.box).reshape(2, 2))
    box = np.clip(corners, 0, placement.size).reshape(-1)
    points = placement.to_picture(np.asarray(one.points)) if one.points else np.empty((0, 2))
    return replace(one, box=tuple(box.tolist()), points=tuple(map(tuple, points.tolist())))


@dataclass(frozen=True)
class Limits:
    """What to keep: boxes of at least `confidence`; of boxes of a class that overlap by more than `iou`, the best."""

    confidence: float = 0.25
    iou: float = 0.45
    most: int = 300

    def configured(self, options: DecodeOptions) -> Limits:
        """Return a copy with the limits that the user specified."""
        confidence = self.confidence if options.confidence is None else options.confidence
        return Limits(confidence, self.iou if options.iou is None else options.iou, self.most)


class BoxDecoder(Decoder[R]):
    """A decoder of boxes or poses. Subclasses have a field `limits`, which the user may change."""

    limits: Limits

    def configured(self: D, options: DecodeOptions) -> D:
        """Return a copy with the user's limits."""
        copy: D = replace(cast(Any, self), limits=self.limits.configured(options))
        return copy


D = TypeVar("D", bound=BoxDecoder[Any])


@dataclass(frozen=True)
class Candidates:
    """Boxes before the selection.

    boxes: [n, 4] left, top, right, bottom, in pixels of the model's input.
    scores: [n], 0 to 1.
    classes: [n], indices.
    points: [n, k, 2] in pixels of the model's input, or None.
    """

    boxes: Array
    scores: Array
    classes: Array
    points: Array | None = None

    def take(self, rows: Array) -> Candidates:
        """Return the given rows, in their order."""
        points = None if self.points is None else self.points[rows]
        return Candidates(self.boxes[rows], self.scores[rows], self.classes[rows], points)

    def confident(self, limits: Limits) -> Candidates:
        """Return the boxes of at least the limit's confidence, most confident first."""
        rows = np.flatnonzero(self.scores >= limits.confidence)
        return self.take(rows[np.argsort(-self.scores[rows], kind="stable")][:_MAX_CANDIDATES])

    def suppressed(self, limits: Limits) -> Candidates:
        """Apply non-maximum suppression per class; expects the most confident boxes first."""
        return self.take(suppress(self.boxes, self.classes, limits))

    def merged(self, limits: Limits) -> Candidates:
        """Replace overlapping boxes of a class by their mean, weighted by score, as MediaPipe's detectors do."""
        return merge(self, limits)

    def detections(self, limits: Limits, labels: Sequence[str] | None) -> Detections:
        """Return the result. Raises InputError for a class beyond the labels."""
        kept = self.take(np.arange(min(limits.most, self.scores.size)))
        check_named(int(kept.classes.max(initial=-1)), labels)
        rows = zip(kept.classes.tolist(), kept.scores.tolist(), kept.boxes.tolist())
        points = [()] * kept.scores.size if kept.points is None else kept.points.tolist()
        return Detections(
            tuple(
                Detection(int(index), name_of(int(index), labels), score, tuple(box), tuple(map(tuple, places)))
                for (index, score, box), places in zip(rows, points)
            )
        )


def name_of(index: int, labels: Sequence[str] | None) -> str | None:
    """Return the class's label, or None if it has none."""
    return labels[index] if labels is not None and 0 <= index < len(labels) else None


def corners_of_centers(boxes: Array) -> Array:
    """Convert [..., 4] from center x, center y, width, height to left, top, right, bottom."""
    half = boxes[..., 2:4] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def are_shares(boxes: Array) -> bool:
    """Return whether boxes [n, 4] are shares of the input rather than pixels, judged by the largest value."""
    return bool(boxes.size == 0 or np.abs(boxes).max() <= _MAX_SHARE)


def in_pixels(boxes: Array, size: tuple[int, int]) -> Array:
    """Scale [n, 4] shares of an input of `size` (height, width) to pixels."""
    height, width = size
    scaled: Array = boxes * np.asarray([width, height, width, height], boxes.dtype)
    return scaled


def overlap(box: Array, others: Array) -> Array:
    """Return the intersection over union of one box [4] and others [n, 4], as left, top, right, bottom."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    share: Array = shared / np.maximum(union, 1e-9)
    return share


def suppress(boxes: Array, classes: Array, limits: Limits) -> Array:
    """Return the rows that remain after non-maximum suppression per class, of boxes sorted by falling confidence."""
    waiting = np.arange(len(boxes))
    kept: list[int] = []
    while waiting.size and len(kept) < limits.most:
        best, rest = waiting[0], waiting[1:]
        kept.append(int(best))
        same = classes[rest] == classes[best]
        waiting = rest[~(same & (overlap(boxes[best], boxes[rest]) > limits.iou))]
    return np.asarray(kept, np.intp)


def merge(found: Candidates, limits: Limits) -> Candidates:
    """Merge overlapping boxes of a class by their weighted mean; expects the most confident boxes first."""
    waiting = np.arange(found.scores.size)
    kept: list[int] = []
    boxes, points = found.boxes.copy(), None if found.points is None else found.points.copy()
    while waiting.size and len(kept) < limits.most:
        best = waiting[0]
        near = (found.classes[waiting] == found.classes[best]) & (
            overlap(found.boxes[best], found.boxes[waiting]) > limits.iou
        )
        near[0] = True
        group, waiting = waiting[near], waiting[~near]
        weights = found.scores[group] / found.scores[group].sum()
        boxes[best] = weights @ found.boxes[group]
        if points is not None and found.points is not None:
            points[best] = np.tensordot(weights, found.points[group], 1)
        kept.append(int(best))
    return Candidates(boxes, found.scores, found.classes, points).take(np.asarray(kept, np.intp))


def check_finite(array: Array, name: str) -> Array:
    """Return the array. Raises InputError if it contains NaN or infinity."""
    if not np.isfinite(array).all():
        raise InputError(f"the model computed NaN or infinity in '{name}'", "check the input's values")
    return array


def single(array: Array, name: str, dimensions: int) -> Array:
    """Drop the leading axes of size 1 of an output for one input, down to `dimensions`. Raises InputError."""
    shape = array.shape
    while array.ndim > dimensions and array.shape[0] == 1:
        array = array[0]
    if array.ndim != dimensions:
        raise InputError(f"'{name}' is {list(shape)}, not the boxes of one input", "give one input at a time")
    return check_finite(array, name)


def layout_error(name: str, array: Array, expected: str) -> InputError:
    """Build the error about an output of another shape than its decoder expects, for the caller to raise."""
    return InputError(f"'{name}' is {list(array.shape)}, not {expected}", "--task tensors shows the outputs undecoded")
