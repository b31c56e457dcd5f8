"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import ModelFacts, check_named, class_names
from runtimes.task import Agreement, Decoder, Placement, Result, Task
from runtimes.tensors import dequantize

_MAX_STRIDE = 32  # pixels of the input per pixel of the map
_COLORS = 3  # channels of a picture, which a map of three classes looks like
_SAME_PIXELS, _MEAN_IOU = 0.95, 0.8  # of results that agree
_FEW = 0.001  # share of the pixels; classes with fewer do not count in the mean IoU of two results


@dataclass(frozen=True, eq=False)  # comparing arrays does not give a bool
class Segmentation(Result):
    """The class of each pixel.

    classes: [height, width], indices of the model's classes.
    size: Height and width of the picture that the map covers, in pixels of the model's input or of the picture.
    labels: The class names.
    """

    classes: Array
    size: tuple[int, int]
    labels: tuple[str, ...] | None = None

    @property
    def shares(self) -> dict[int, float]:
        """The share of the pixels of each class that occurs, largest first; ties go to the lower index."""
        found, counts = np.unique(self.classes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {int(found[i]): float(counts[i] / self.classes.size) for i in order}

    @property
    def masks(self) -> dict[int, Array]:
        """Which pixels belong to each class that occurs: index → [height, width] of bool."""
        return {index: self.classes == index for index in self.shares}

    def label(self, index: int) -> str | None:
        """Return a class's name, or None if it has none."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else None

    def to_json(self) -> JsonObject:
        """Return {"classes": [{"index", "label", "share"}], "size": [height, width]}, the largest share first."""
        rows = [{"index": i, "label": self.label(i), "share": share} for i, share in self.shares.items()]
        return {"classes": list(rows), "size": list(self.classes.shape)}

    def in_picture(self, placement: Placement) -> Segmentation:
        """Return the map in the picture's size, each pixel with the class at its place."""
        width, height = placement.size
        rows = _places(height, placement.scale[1], placement.offset[1], self.size[0], self.classes.shape[0])
        columns = _places(width, placement.scale[0], placement.offset[0], self.size[1], self.classes.shape[1])
        return Segmentation(self.classes[rows[:, np.newaxis], columns], (height, width), self.labels)


def _places(count: int, scale: float, offset: float, size: int, length: int) -> Array:
    """Return the index in a map axis of `length`, which covers `size` input pixels, of each of `count` pixels."""
    centers = (np.arange(count) + 0.5) * scale + offset
    places: Array = np.clip(np.floor(centers * length / size), 0, length - 1).astype(np.intp)
    return places


@dataclass(frozen=True)
class ClassMap(Decoder[Segmentation]):
    """Decodes a map of class indices, such as an ArgMax gives: [1, height, width], with an axis of 1 anywhere.

    output: The output's spec.
    size: Height and width of the input.
    labels: The class names.
    """

    output: TensorSpec
    size: tuple[int, int]
    labels: tuple[str, ...] | None = None
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> ClassMap | None:
        """Accept a first output of integers with the sides of the input, or a fraction of them."""
        size = model.picture_size
        if size is None or not model.outputs:
            return None
        spec = model.outputs[0]
        sides = [side for side in spec.shape[1:] if side != 1]
        is_argmax = (model.output_operator or "").lower().replace("_", "") == "argmax"
        is_integers = is_argmax or (spec.dtype.startswith(("int", "uint")) and spec.quantization is None)
        if not is_integers or len(sides) != 2 or not _covers((sides[0], sides[1]), size):
            return None
        chosen = model.producers[0].classes if model.producers and model.producers[0] is not None else None
        labels, words = class_names(model, chosen)
        return cls(spec, size, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Segmentation:
        """Return the map. Raises InputError for an output of another layout."""
        found = outputs[self.output.name]
        sides = [side for side in found.shape if side != 1]
        if len(sides) != 2 or found.min(initial=0) < 0:
            raise InputError(f"'{self.output.name}' is {list(found.shape)}, not one map of classes", "give one input")
        return _check(Segmentation(found.reshape(sides).astype(np.intp), self.size, self.labels))


@dataclass(frozen=True)
class ClassScoreMap(Decoder[Segmentation]):
    """Decodes one score per class for each pixel: [1, classes, height, width] or [1, height, width, classes].

    output: The output's spec.
    size: Height and width of the input.
    axis: The axis of the classes, 1 or 3. A single class is a foreground, whose score is a logit or probability.
    threshold: The score from which a pixel belongs to a single class.
    labels: The class names.
    """

    output: TensorSpec
    size: tuple[int, int]
    axis: int
    threshold: float = 0.0
    labels: tuple[str, ...] | None = None
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> ClassScoreMap | None:
        """Accept a first output that covers the input, if a fact tells classes from colors, depths and features."""
        size = model.picture_size
        if size is None or not model.outputs or len(model.outputs[0].shape) != 4:
            return None
        spec = model.outputs[0]
        axis = next((axis for axis in (1, 3) if _covers(_sides(spec, axis), size)), None)
        if axis is None or not isinstance(spec.shape[axis], int):
            return None
        count = int(spec.shape[axis])
        labels, words = class_names(model, max(count, 2))  # a single score tells a foreground from a background
        operator = (model.output_operator or "").lower()
        is_stated = model.task == "segmentation" or labels is not None or "softmax" in operator
        is_whole = _sides(spec, axis) == size and count not in (1, _COLORS) and len(model.outputs) == 1
        if not (is_stated or is_whole) or (count == 1 and not is_stated):
            return None
        if not is_stated:
            words = (f"each pixel's {count} numbers are scores of classes (--task)", *words)
        threshold = 0.5 if "sigmoid" in operator or "logistic" in operator else 0.0
        return cls(spec, size, axis, threshold, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Segmentation:
        """Return the class with the highest score. Raises InputError for an output of another layout."""
        scores = dequantize(outputs[self.output.name], self.output.quantization)
        if scores.ndim != 4 or scores.shape[0] != 1:
            raise InputError(f"'{self.output.name}' is {list(scores.shape)}, not one map of scores", "give one input")
        if not np.isfinite(scores).all():
            raise InputError(f"the model computed NaN or infinity in '{self.output.name}'", "check the input's values")
        is_single = scores.shape[self.axis] == 1
        found = scores.max(axis=self.axis) > self.threshold if is_single else scores.argmax(axis=self.axis)
        return _check(Segmentation(found[0].astype(np.intp), self.size, self.labels))


class SegmentationTask(Task[Segmentation]):
    """Gives each pixel of a picture a class."""

    id: ClassVar[str] = "segmentation"
    rank: ClassVar[int] = 30
    resize: ClassVar[str] = "stretch"
    decoders = (ClassMap, ClassScoreMap)

    def compare(self, expected: Segmentation, actual: Segmentation) -> Agreement:
        """Results agree with 95 % equal pixels and a mean IoU of 0.8 over the classes of the expected map."""
        if expected.classes.shape != actual.classes.shape:
            sizes = " and ".join(str(list(one.classes.shape)) for one in (expected, actual))
            return Agreement(agrees=False, message=f"the maps differ in size: {sizes}")
        same = float((expected.classes == actual.classes).mean())
        ious = {index: _iou(expected.classes, actual.classes, index) for index in expected.shares}
        shares = expected.shares
        counted = [iou for index, iou in ious.items() if shares[index] >= _FEW] or [1.0]
        mean, worst = float(np.mean(counted)), min(ious, key=lambda index: ious[index])
        words = f"{same:.2%} of the pixels are equal, mean IoU {mean:.3f}, class {worst} has {ious[worst]:.3f}"
        return Agreement(same >= _SAME_PIXELS and mean >= _MEAN_IOU, {"equal_pixels": same, "mean_iou": mean}, words)


def _iou(one: Array, other: Array, index: int) -> float:
    first, second = one == index, other == index
    return float((first & second).sum() / max(1, (first | second).sum()))


def _sides(spec: TensorSpec, axis: int) -> tuple[int | str, int | str]:
    shape = spec.shape
    return (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])


def _covers(sides: Sequence[int | str], size: tuple[int, int]) -> bool:
    """Return whether a map of these sides has one pixel for each cell of a stride, the same for height and width."""
    height, width = sides
    if not isinstance(height, int) or not isinstance(width, int) or height < 2 or width < 2:
        return False
    strides = round(size[0] / height), round(size[1] / width)
    return strides[0] == strides[1] and 1 <= strides[0] <= _MAX_STRIDE


def _check(found: Segmentation) -> Segmentation:
    """Return the map. Raises InputError if it holds a class beyond the names."""
    check_named(int(found.classes.max(initial=0)), found.labels)
    return found
