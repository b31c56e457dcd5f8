"""Pose: the key points of persons, such as eyes, elbows and knees."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import ClassVar, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, JsonValue, to_json
from runtimes.artifact.manifest import TensorSpec
from runtimes.decoders.boxes import (
    BoxDecoder,
    Candidates,
    Limits,
    are_shares,
    check_finite,
    corners_of_centers,
    in_pixels,
    layout_error,
    name_of,
    overlap,
    single,
)
from runtimes.decoders.yolo import YoloDecoder, cell_boxes
from runtimes.model_files.facts import ModelFacts, check_named, class_names
from runtimes.task import Agreement, PictureDefaults, Placement, Result, Task
from runtimes.tensors import dequantize

# The key points of COCO (cocodataset.org), in the order that MoveNet and YOLO-pose give them.
COCO = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow"),
    *("right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle"),
    "right ankle",
)
_VISIBLE = 0.2  # the score from which a key point counts, as in MoveNet's own programs
_BOX = 4
_MULTI_POSE = len(COCO) * 3 + _BOX + 1
_SAME_PERSON, _DISTANCE = 0.5, 0.05  # IoU of boxes, and distance of key points as a share of the box's diagonal


@dataclass(frozen=True)
class KeyPoint:
    """A point in pixels, with its confidence."""

    name: str
    x: float
    y: float
    score: float


@dataclass(frozen=True)
class Pose:
    """A person, or another object with key points.

    score: The confidence.
    box: Left, top, right and bottom, in pixels.
    keypoints: The key points, in the model's order.
    index: The class's index; None if the model knows a single one.
    label: The class's name; None if it has none.
    """

    score: float
    box: tuple[float, ...]
    keypoints: tuple[KeyPoint, ...]
    index: int | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """What to call it: its class, or a person."""
        return "person" if self.index is None else self.label or f"class {self.index}"

    def to_json(self) -> JsonObject:
        """Return {"score", "box", "keypoints": [{"name", "x", "y", "score"}]}, of several classes "label", "index"."""
        points: JsonValue = [to_json(one) for one in self.keypoints]
        found: JsonObject = {"score": self.score, "box": list(self.box), "keypoints": points}
        return found if self.index is None else {**found, "label": self.label, "index": self.index}


@dataclass(frozen=True)
class Poses(Result):
    """The persons, most confident first."""

    poses: tuple[Pose, ...]

    def to_json(self) -> JsonValue:
        """Return a list with an object per person."""
        return [one.to_json() for one in self.poses]

    def in_picture(self, placement: Placement) -> Poses:
        """Map to pixels of the picture. Boxes are clipped to it, points are not: they may be outside."""
        return Poses(tuple(_in_picture(one, placement) for one in self.poses))


def _in_picture(pose: Pose, placement: Placement) -> Pose:
    box = np.clip(placement.to_picture(np.asarray(pose.box).reshape(2, 2)), 0, placement.size).reshape(-1)
    points = placement.to_picture(np.asarray([(one.x, one.y) for one in pose.keypoints])).tolist()
    moved = tuple(replace(one, x=x, y=y) for one, (x, y) in zip(pose.keypoints, points))
    return replace(pose, box=tuple(box.tolist()), keypoints=moved)


@dataclass(frozen=True)
class MoveNet(BoxDecoder[Poses]):
    """Decodes MoveNet: [1, 1, 17, 3] for one person, or [1, n, 56] for several.

    A key point is y, x and score, as shares of the input. A row of several persons ends with top, left, bottom, right
    and score.

    output: The output's spec.
    size: Height and width of the input.
    limits: Which of several persons to keep.
    """

    output: TensorSpec
    size: tuple[int, int]
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ("the key points are the 17 of COCO",)

    @classmethod
    def recognize(cls, model: ModelFacts) -> MoveNet | None:
        """Accept a single output of one of these shapes; the input may be free, then it is a multiple of 32."""
        size = model.picture_size
        if size is None or len(model.outputs) != 1:
            return None
        shape = model.outputs[0].shape
        is_several = len(shape) == 3 and shape[2] == _MULTI_POSE and not isinstance(shape[1], str) and shape[1] <= 20
        if shape != (1, 1, len(COCO), 3) and not is_several:
            return None
        class_names(model, 1)  # raises InputError for other labels than a person's
        return cls(model.outputs[0], size)

    def pictures(self) -> PictureDefaults:
        """Return MoveNet's raw pixels."""
        return PictureDefaults("stretch", 0, 0.0, 1.0, "MoveNet models")

    def decode(self, outputs: Mapping[str, Array]) -> Poses:
        """Return the persons. Raises InputError for an output of another layout."""
        name = self.output.name
        rows = check_finite(dequantize(outputs[name], self.output.quantization), name)
        if rows.size % (len(COCO) * 3) and rows.shape[-1] != _MULTI_POSE:
            raise layout_error(name, rows, "key points")
        if rows.shape[-1] != _MULTI_POSE:
            return Poses((self._pose(rows.reshape(-1, 3)[: len(COCO)]),))
        people = rows.reshape(-1, _MULTI_POSE)
        order = np.argsort(-people[:, -1], kind="stable")
        return Poses(tuple(self._person(row) for row in people[order] if row[-1] >= self.limits.confidence))

    def _pose(self, points: Array) -> Pose:
        places = points[:, [1, 0]] * np.asarray([self.size[1], self.size[0]])
        scores = points[:, 2]
        seen = places[scores >= _VISIBLE] if (scores >= _VISIBLE).any() else places
        box = (*seen.min(axis=0).tolist(), *seen.max(axis=0).tolist())
        return Pose(float(scores.mean()), box, key_points(places, scores))

    def _person(self, row: Array) -> Pose:
        pose = self._pose(row[: len(COCO) * 3].reshape(-1, 3))
        box = in_pixels(row[len(COCO) * 3 :][None, [1, 0, 3, 2]], self.size)[0]
        return replace(pose, score=float(row[-1]), box=tuple(box.tolist()))


@dataclass(frozen=True)
class YoloPose(YoloDecoder[Poses]):
    """Decodes YOLO-pose: for each cell of the grids a box, a score per class and key points (x, y, visibility).

    output: The output's spec.
    size: Height and width of the input.
    points: The number of key points.
    numbers: The numbers of each key point, 2 or 3.
    classes: The number of classes.
    is_selected: Whether the model selects the boxes itself: rows of four corners, score, class and key points; None if
        only the output itself shows it.
    labels: The names of several classes.
    limits: Which boxes to keep.
    """

    output: TensorSpec
    size: tuple[int, int]
    points: int = len(COCO)
    numbers: int = 3
    classes: int = 1
    is_selected: bool | None = None
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> YoloPose | None:
        """Accept the classes and key points of the metadata; without metadata, one class and the key points of COCO."""
        size = model.picture_size
        if size is None or len(model.outputs) != 1 or len(model.outputs[0].shape) != 3:
            return None
        spec = model.outputs[0]
        sides = spec.shape[1:]
        is_stated = model.task == "pose"
        is_free = any(isinstance(side, str) for side in sides)
        named = len(model.labels.names) if is_stated and model.labels is not None else 1
        found = _key_point_shape(model.metadata.get("kpt_shape", ""))
        if found is None and is_stated:
            found = _shown_key_points(sides, size, 1) or _shown_key_points(sides, size, named)
        points, numbers = found or (len(COCO), 3)
        selected_row = _BOX + 2 + points * numbers
        classes = named if is_free or sides[1] == selected_row or _BOX + named + points * numbers in sides else 1
        row = _BOX + classes + points * numbers
        cells = next((side for side in sides if isinstance(side, int) and cell_boxes(side, size) == 1), None)
        is_selected = is_stated and sides[1] == selected_row and (row != selected_row or cells is None)
        if row not in sides and not is_selected and not is_free:
            return None
        if not is_stated and (cells is None or row not in sides or model.labels is not None):
            return None
        labels, words = class_names(model, classes)  # raises InputError for the user's labels of another number
        if classes == 1:
            labels, words = None, ()
        if not is_stated:
            words = ("the 56 numbers of a box are one class and the 17 key points of COCO (--task)",)
        elif "kpt_shape" not in model.metadata and points != len(COCO):
            count = "one class" if classes == 1 else f"{classes} classes"
            words = (*words, f"the {row} numbers of a box are {count} and {points} key points of {numbers} numbers")
        return cls(spec, size, points, numbers, classes, None if is_free else is_selected, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Poses:
        """Return the best persons. Raises InputError for an output of another layout."""
        name = self.output.name
        rows = single(dequantize(outputs[name], self.output.quantization), name, 2)
        is_selected, first = self._layout(rows)
        rows = rows if is_selected or rows.shape[1] == first + self.points * self.numbers else rows.T
        boxes, scores, points = rows[:, :_BOX], rows[:, _BOX:first], rows[:, first:]
        places = points.reshape(len(rows), self.points, self.numbers)
        boxes = boxes if is_selected else corners_of_centers(boxes)
        if are_shares(boxes):
            boxes = in_pixels(boxes, self.size)
            places = places * np.asarray([self.size[1], self.size[0], 1][: self.numbers], np.float32)
        best = np.rint(scores[:, 1]).astype(np.intp) if is_selected else scores.argmax(axis=1)
        confidence = scores[:, 0] if is_selected else scores.max(axis=1)
        found = Candidates(boxes, confidence, best, places).confident(self.limits)
        kept = found if is_selected else found.suppressed(self.limits)
        check_named(int(kept.classes.max(initial=-1)), self.labels)
        return Poses(tuple(self._person(kept, place) for place in range(kept.scores.size)))

    def _layout(self, rows: Array) -> tuple[bool, int]:
        """Return whether the model has selected the rows, and where their key points begin."""
        rest = self.points * self.numbers
        row, selected_row = _BOX + self.classes + rest, _BOX + 2 + rest
        is_selected = self.is_selected
        if is_selected is None:
            is_selected = rows.shape[1] == selected_row and row not in rows.shape
        if (selected_row != rows.shape[1]) if is_selected else (row not in rows.shape):
            raise layout_error(self.output.name, rows, f"{row} numbers per person")
        return is_selected, (selected_row if is_selected else row) - rest

    def _person(self, found: Candidates, place: int) -> Pose:
        assert found.points is not None
        points, score, index = found.points[place], float(found.scores[place]), int(found.classes[place])
        visible = points[:, 2] if self.numbers == 3 else np.full(self.points, score)
        box, shown = tuple(found.boxes[place].tolist()), key_points(points[:, :2], visible)
        if self.classes == 1:
            return Pose(score, box, shown)
        return Pose(score, box, shown, index, name_of(index, self.labels))


class PoseTask(Task[Poses]):
    """Finds the key points of persons."""

    id: ClassVar[str] = "pose"
    rank: ClassVar[int] = 10
    resize: ClassVar[str] = "stretch"
    decoders = (MoveNet, YoloPose)

    def compare(self, expected: Poses, actual: Poses) -> Agreement:
        """Results agree if they hold the same persons, with visible key points within 5 % of the box's diagonal."""
        if len(expected.poses) != len(actual.poses):
            return Agreement(agrees=False, message=f"persons: {len(expected.poses)}, and here {len(actual.poses)}")
        distances = [0.0]
        for one in expected.poses:
            ious = overlap(np.asarray(one.box), np.asarray([other.box for other in actual.poses]).reshape(-1, 4))
            ious[[other.index != one.index for other in actual.poses]] = 0
            if ious.max() < _SAME_PERSON:
                return Agreement(agrees=False, message="a person is in another place")
            distances.append(_distance(one, actual.poses[int(ious.argmax())]))
        largest = max(distances)
        words = f"{len(expected.poses)} persons, key points differ by up to {largest:.1%} of the box"
        return Agreement(largest <= _DISTANCE, {"keypoint_distance": largest}, words)


def _distance(one: Pose, other: Pose) -> float:
    """Return the largest distance of visible key points, as a share of the box's diagonal."""
    pairs = [(a, b) for a, b in zip(one.keypoints, other.keypoints) if a.score >= _VISIBLE]
    diagonal = float(np.hypot(one.box[2] - one.box[0], one.box[3] - one.box[1])) or 1.0
    return max((float(np.hypot(a.x - b.x, a.y - b.y)) / diagonal for a, b in pairs), default=0.0)


def key_points(places: Array, scores: Array) -> tuple[KeyPoint, ...]:
    """Name key points [k, 2] (x, y): COCO's if there are 17, else by number."""
    names = COCO if len(places) == len(COCO) else tuple(f"point {i}" for i in range(len(places)))
    rows = zip(names, places.tolist(), scores.tolist())
    return tuple(KeyPoint(name, x, y, score) for name, (x, y), score in rows)


def _key_point_shape(text: str) -> tuple[int, int] | None:
    """Parse ultralytics' `kpt_shape`, such as [17, 3]: key points, and numbers of each."""
    try:
        found = ast.literal_eval(text) if 0 < len(text) < 100 else None
    except (ValueError, SyntaxError):
        found = None
    if isinstance(found, (list, tuple)) and len(found) == 2 and found[1] in (2, 3) and 0 < found[0] < 1000:
        return int(found[0]), int(found[1])
    return None


def _shown_key_points(sides: Sequence[int | str], size: tuple[int, int], classes: int) -> tuple[int, int] | None:
    """Return how many key points fill the numbers of a cell beside a box and its scores, and the numbers of each."""
    cells = max((side for side in sides if isinstance(side, int) and cell_boxes(side, size) == 1), default=0)
    row = sides[1] if cells == sides[0] else sides[0]
    if not cells or not isinstance(row, int) or row <= _BOX + classes:
        return None
    rest = row - _BOX - classes
    return next(((rest // numbers, numbers) for numbers in (3, 2) if rest % numbers == 0), None)
