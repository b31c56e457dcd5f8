"""The output layouts of YOLO models.

Layouts and metadata are those of exports by ultralytics; none of their code is used.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.manifest import TensorSpec
from runtimes.decoders.boxes import (
    BoxDecoder,
    Candidates,
    Detections,
    Limits,
    are_shares,
    corners_of_centers,
    in_pixels,
    layout_error,
    single,
)
from runtimes.errors import InputError
from runtimes.model_files.facts import TASK_OPTION, ModelFacts, class_names
from runtimes.task import PictureDefaults, R
from runtimes.tensors import dequantize, sigmoid

_STRIDES = (4, 8, 16, 32, 64)
_BOX = 4  # center x, center y, width, height
_ROW = 6  # left, top, right, bottom, score, class
_YOLOX = 85  # numbers of a box: one per cell, with objectness and COCO's classes, but relative to its cell: unsupported
_MAX_ROWS = 1000
_MAX_ARGUMENTS = 10_000  # characters
_RT_DETR = "RTDETRDecoder"
_SELECTING = ("topk", "nonmaxsuppression")  # operators of models that select boxes themselves
# Scores beyond these are logits: those of the background are far below, and probabilities miss 0 and 1 by a step.
_LOWEST_PROBABILITY, _HIGHEST_PROBABILITY = -1.0, 2.0
_LETTERBOX = PictureDefaults("letterbox", 114, 0.0, 1 / 255, "YOLO models")
_GIVE_LABELS = "pass the class names with --labels, one for each class"


class YoloDecoder(BoxDecoder[R]):
    """A decoder of YOLO models, which take letterboxed pictures."""

    def pictures(self) -> PictureDefaults:
        """Return the letterbox."""
        return _LETTERBOX


@dataclass(frozen=True)
class YoloCells(YoloDecoder[Detections]):
    """Decodes one box and one score per class for each cell of the grids, before any suppression.

    v8, v9, v11 and newer: 4 + classes numbers per cell; v5 and v7: 5 + classes numbers, the fifth being objectness,
    for each of three boxes per cell. Either axis may come first. Boxes are in pixels of the input or shares of it.

    output: The output's spec.
    size: Height and width of the input.
    classes: The number of classes; None if only the output itself shows it.
    has_objectness: Whether the fifth number is the confidence that there is any object; None if only the output itself
        shows it.
    labels: The class names.
    limits: Which boxes to keep.
    """

    output: TensorSpec
    size: tuple[int, int]
    classes: int | None
    has_objectness: bool | None = False
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> YoloCells | None:
        """Accept an output [1, numbers, cells] or [1, cells, numbers] with as many cells as the input's grids."""
        size = model.picture_size
        if size is None or len(model.outputs) != 1 or len(model.outputs[0].shape) != 3 or _selects(model):
            return None
        spec, labels = model.outputs[0], class_names(model)[0]
        sides = [side for side in spec.shape[1:] if isinstance(side, int)]
        if len(sides) != 2:
            classes = len(labels) if labels and model.task == "detection" else None
            return cls(spec, size, classes, None, labels) if classes is not None else None
        boxes = next((cell_boxes(side, size) for side in reversed(sides) if cell_boxes(side, size)), 0)
        if not boxes and model.task != "detection":
            return None
        cells = next((side for side in reversed(sides) if cell_boxes(side, size)), max(sides))
        numbers = sides[0] if cells == sides[1] else sides[1]
        surplus = numbers - _BOX - len(labels) if labels else None
        # Ultralytics' models with one box per cell have no objectness: there is a label too few, then.
        is_ultralytics = boxes == 1 and model.task == "detection" and model.origins.get("task") != TASK_OPTION
        has_objectness = surplus == 1 if surplus in (0, 1) and not is_ultralytics else boxes == 3
        classes = numbers - _BOX - has_objectness
        is_yolox = boxes == 1 and (has_objectness or (labels is None and numbers == _YOLOX))
        if classes < 1 or is_yolox:
            return None
        labels, words = class_names(model, classes)
        return cls(spec, size, classes, has_objectness, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the best boxes of each class. Raises InputError for an output of another layout."""
        name = self.output.name
        array = single(dequantize(outputs[name], self.output.quantization), name, 2)
        has_objectness = self._has_objectness(array.shape)
        rows = self._rows(array, has_objectness)
        boxes, scores = rows[:, :_BOX], rows[:, _BOX:]
        if scores.min(initial=0) < _LOWEST_PROBABILITY or scores.max(initial=0) > _HIGHEST_PROBABILITY:
            scores = sigmoid(scores)
        if has_objectness:
            scores = scores[:, :1] * scores[:, 1:]
        if are_shares(boxes):
            boxes = in_pixels(boxes, self.size)
        best = scores.argmax(axis=1)
        found = Candidates(corners_of_centers(boxes), scores[np.arange(len(best)), best], best)
        return found.confident(self.limits).suppressed(self.limits).detections(self.limits, self.labels)

    def _has_objectness(self, shape: Sequence[int]) -> bool:
        if self.has_objectness is not None or self.classes is None:
            return bool(self.has_objectness)
        return _BOX + self.classes not in shape and _BOX + 1 + self.classes in shape

    def _rows(self, array: Array, has_objectness: bool) -> Array:
        """Return [cells, numbers]."""
        first, second = array.shape
        numbers = min(array.shape) if self.classes is None else _BOX + has_objectness + self.classes
        if numbers not in (first, second) or numbers <= _BOX:
            raise InputError(
                f"'{self.output.name}' is {list(array.shape)}, not {numbers} numbers per box", _GIVE_LABELS
            )
        is_second = second == numbers and (first != numbers or not cell_boxes(second, self.size))
        return array if is_second else array.T


@dataclass(frozen=True)
class YoloRows(YoloDecoder[Detections]):
    """Decodes boxes that the model has selected itself: rows of four corners, score and class.

    Corners are in pixels of the input or shares of it. RT-DETR's rows hold center and size, as shares.

    output: The output's spec.
    size: Height and width of the input.
    has_centers: Whether the first four numbers are center and size; None if only the values show it.
    labels: The class names.
    limits: Which boxes to keep.
    """

    output: TensorSpec
    size: tuple[int, int]
    has_centers: bool | None = None
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> YoloRows | None:
        """Accept a single output [1, rows, 6] of a model that selects boxes, by its operators or metadata."""
        size = model.picture_size
        if size is None or len(model.outputs) != 1:
            return None
        spec = model.outputs[0]
        if len(spec.shape) != 3 or spec.shape[2] != _ROW or spec.shape[0] not in (1, *_names(spec)):
            return None
        rows = spec.shape[1]
        is_few = isinstance(rows, str) or rows <= _MAX_ROWS
        is_stated = model.task == "detection" and not (isinstance(rows, int) and cell_boxes(rows, size))
        if not is_few or not (_selects(model) or is_stated):
            return None
        head = model.metadata.get("head")
        has_centers = None if not head else head == _RT_DETR
        labels, words = class_names(model)
        return cls(spec, size, has_centers, labels, assumptions=words)

    def pictures(self) -> PictureDefaults:
        """Return the letterbox of YOLO models."""
        if self.has_centers:
            return PictureDefaults("stretch", 0, 0.0, 1 / 255, "RT-DETR models")
        return _LETTERBOX

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the confident rows. Raises InputError for an output of another layout."""
        name = self.output.name
        rows = single(dequantize(outputs[name], self.output.quantization), name, 2)
        if rows.shape[1] != _ROW:
            raise layout_error(name, rows, f"{_ROW} numbers per box")
        boxes = rows[:, :_BOX]
        shares = are_shares(boxes)
        has_centers = self.has_centers
        if has_centers is None:
            has_centers = shares and bool((boxes[:, 2:] < boxes[:, :2]).any())
        if has_centers:
            boxes = corners_of_centers(boxes)
        if shares:
            boxes = in_pixels(boxes, self.size)
        found = Candidates(boxes, rows[:, _BOX], np.rint(rows[:, _BOX + 1]).astype(np.intp))
        return found.confident(self.limits).detections(self.limits, self.labels)


def cell_boxes(count: int, size: tuple[int, int]) -> int:
    """Return how many boxes each cell of the grids of an input has, 1 or 3, if all have `count`; else 0.

    The grids are those of at least two successive strides from 4 to 64.
    """
    cells = [-(-size[0] // stride) * -(-size[1] // stride) for stride in _STRIDES]
    sums = {sum(cells[low:high]) for low in range(len(cells)) for high in range(low + 2, len(cells) + 1)}
    return next((boxes for boxes in (1, 3) if count % boxes == 0 and count // boxes in sums), 0)


def _selects(model: ModelFacts) -> bool:
    """Return whether the model selects boxes itself, by its operators or the metadata of ultralytics."""
    words = [operator.lower().replace("_", "") for operator in model.operators]
    if any(word.startswith(_SELECTING) for word in words):
        return True
    return model.metadata.get("end2end") == "True" or _has_nms(model.metadata.get("args", ""))


def _has_nms(arguments: str) -> bool:
    """Whether the arguments of an export by ultralytics, a Python dictionary, put the suppression into the model."""
    try:
        found = ast.literal_eval(arguments) if 0 < len(arguments) < _MAX_ARGUMENTS else {}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("nms") is True


def _names(spec: TensorSpec) -> tuple[str, ...]:
    return tuple(size for size in spec.shape if isinstance(size, str))
