"""The output layouts of SSD detectors: with post-processing in the model, and raw boxes relative to anchors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.manifest import TensorSpec
from runtimes.artifact.self_check import RowScores
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
from runtimes.model_files.facts import ModelFacts, class_names
from runtimes.task import PictureDefaults
from runtimes.tensors import dequantize, sigmoid

_POST_PROCESS = "TFLite_Detection_PostProcess"
_DETECTION_OUTPUT = "DetectionOutput"
_PLACEHOLDERS = ("???", "background", "__background__")  # first labels that are not classes
_ROW = 7  # picture, class, confidence, left, top, right, bottom
# The anchors of MediaPipe's detectors: (stride, anchors per cell) of each grid. Anchors are centered in their cell and
# as large as the input (mediapipe/modules/*/*.pbtxt, SsdAnchorsCalculatorOptions with fixed_anchor_size; Apache-2.0).
_ANCHORS = (
    ((8, 2), (16, 6)),  # faces at short range, palms
    ((16, 2), (32, 6)),  # faces, back camera
    ((4, 1),),  # faces at full range
    ((8, 2), (16, 2), (32, 6)),  # persons
)
_PALM_POINTS = 7
_FIRST_POINT = 4  # of the numbers of a box


@dataclass(frozen=True)
class _SelectingDecoder(BoxDecoder[Detections]):
    """The fields of decoders for models that select the boxes themselves.

    boxes, classes, scores: The outputs' specs.
    size: Height and width of the input.
    first_class: The number of the first class in `classes`.
    labels: The class names.
    limits: Which boxes to keep.
    """

    boxes: TensorSpec
    classes: TensorSpec
    scores: TensorSpec
    size: tuple[int, int]
    first_class: int = 0
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PostProcessedSsd(_SelectingDecoder):
    """Decodes the four outputs of TFLite_Detection_PostProcess, and of TensorFlow's detection models that contain it.

    Boxes [1, n, 4] are top, left, bottom and right as shares of the input, classes [1, n] floats without a background
    class, then scores [1, n]; suppressed already, but not cut at any score.
    """

    @classmethod
    def recognize(cls, model: ModelFacts) -> PostProcessedSsd | None:
        """Accept the outputs of that operator, which metadata names if the model was converted.

        Else accept outputs with the names of TensorFlow's detection API.
        """
        size = model.picture_size
        if size is None:
            return None
        labels, words = _labels(model, _POST_PROCESS)
        found = model.produced_by(_POST_PROCESS) or _converted(model)
        if {0, 1, 2} <= set(found):
            return cls(found[0], found[1], found[2], size, 0, labels, assumptions=words)
        named = {role: _find_output(model, f"detection_{role}") for role in ("boxes", "classes", "scores")}
        boxes, classes, scores = (named[role] for role in ("boxes", "classes", "scores"))
        if boxes is None or classes is None or scores is None:
            return None
        return cls(boxes, classes, scores, size, 1, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the confident boxes. Raises InputError for outputs of another layout."""
        boxes = single(dequantize(outputs[self.boxes.name], self.boxes.quantization), self.boxes.name, 2)
        vectors = [
            single(dequantize(outputs[spec.name], spec.quantization), spec.name, 1)
            for spec in (self.classes, self.scores)
        ]
        if boxes.shape[1] != 4 or any(len(vector) != len(boxes) for vector in vectors):
            raise layout_error(self.boxes.name, boxes, "four numbers per box")
        classes = np.rint(vectors[0]).astype(np.intp) - self.first_class
        found = Candidates(in_pixels(boxes[:, [1, 0, 3, 2]], self.size), vectors[1], classes)
        return found.confident(self.limits).detections(self.limits, self.labels)


@dataclass(frozen=True)
class SelectedBoxes(_SelectingDecoder):
    """Decodes boxes that the model has selected itself, and their classes and scores, as TorchVision's detectors do.

    Boxes [n, 4] are left, top, right and bottom in pixels of the input or shares of it, classes [n] integers, and
    scores [n]; all may have a first axis of 1.
    """

    @classmethod
    def recognize(cls, model: ModelFacts) -> SelectedBoxes | None:
        """Accept three outputs: floats with four numbers per row, and a row of integers and one of floats."""
        size = model.picture_size
        if size is None or len(model.outputs) != 3:
            return None
        boxes, *rows = sorted(model.outputs, key=lambda spec: -len(spec.shape))
        classes, scores = sorted(rows, key=lambda spec: not spec.dtype.startswith("int"))
        rank = len(boxes.shape)
        are_rows = all(len(spec.shape) == rank - 1 for spec in rows) and not scores.dtype.startswith("int")
        if rank not in (2, 3) or boxes.shape[-1] != 4 or not are_rows or not classes.dtype.startswith("int"):
            return None
        if any(spec.quantization is not None for spec in model.outputs):
            return None
        labels, words = _labels(model, "")
        first_class = _offset(model) if model.labels is not None else model.label_offset or 0
        if model.labels is None and model.label_offset is None:
            words = (
                *words,
                "classes are numbered as the model does it, from 0 (--label-offset 1: 0 is the background)",
            )
        return cls(boxes, classes, scores, size, first_class, labels, assumptions=words)

    def pictures(self) -> PictureDefaults:
        """Return the pictures of TorchVision, whose detectors scale and resize them inside."""
        return PictureDefaults("stretch", 0, 0.0, 1 / 255, "TorchVision's detectors")

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the confident boxes. Raises InputError for outputs of another layout."""
        boxes = single(outputs[self.boxes.name], self.boxes.name, 2)
        classes, scores = (single(outputs[spec.name], spec.name, 1) for spec in (self.classes, self.scores))
        if boxes.shape[1] != 4 or not len(boxes) == len(classes) == len(scores):
            raise layout_error(self.boxes.name, boxes, "four numbers per box")
        corners = in_pixels(boxes, self.size) if are_shares(boxes) else boxes
        found = Candidates(corners, scores, classes.astype(np.intp) - self.first_class)
        return found.confident(self.limits).detections(self.limits, self.labels)


@dataclass(frozen=True)
class DetectionOutputRows(BoxDecoder[Detections]):
    """Decodes OpenVINO's DetectionOutput: rows [1, 1, n, 7] of picture, class, confidence and corners as shares.

    Class 0 is the background. A row whose picture is negative ends the list.

    output: The output's spec.
    size: Height and width of the input.
    labels: The class names.
    limits: Which boxes to keep.
    """

    output: TensorSpec
    size: tuple[int, int]
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> DetectionOutputRows | None:
        """Accept a single output of that operator."""
        found, size = model.produced_by(_DETECTION_OUTPUT), model.picture_size
        if size is None or not found:
            return None
        labels, words = _labels(model, _DETECTION_OUTPUT)
        return cls(found[0], size, labels, assumptions=words)

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the confident rows. Raises InputError for an output of another layout."""
        name = self.output.name
        rows = single(dequantize(outputs[name], self.output.quantization), name, 2)
        if rows.shape[1] != _ROW:
            raise layout_error(name, rows, f"{_ROW} numbers per box")
        ended = np.flatnonzero(rows[:, 0] < 0)
        rows = rows[: ended[0]] if ended.size else rows
        classes = np.rint(rows[:, 1]).astype(np.intp) - 1
        found = Candidates(in_pixels(rows[:, 3:], self.size), rows[:, 2], classes)
        return found.confident(self.limits).detections(self.limits, self.labels)


@dataclass(frozen=True)
class AnchoredBoxes(BoxDecoder[Detections]):
    """Decodes MediaPipe's detectors (BlazeFace and its relatives): one raw box with key points for each anchor.

    Boxes [1, anchors, 4 + 2 × points] are center, size and points in pixels, relative to the anchor's center; scores
    [1, anchors, 1] are logits. Boxes that overlap are merged by their weighted mean.

    boxes, scores: The outputs' specs.
    size: Height and width of the input.
    grids: (stride, anchors per cell) of each grid.
    are_logits: Whether the scores are logits.
    labels: The class names.
    limits: Which boxes to keep.
    """

    boxes: TensorSpec
    scores: TensorSpec
    size: tuple[int, int]
    grids: tuple[tuple[int, int], ...]
    are_logits: bool = True
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=lambda: Limits(confidence=0.5, iou=0.3))
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> AnchoredBoxes | None:
        """Accept two outputs with a row for each anchor of a detector of MediaPipe."""
        size = model.picture_size
        if size is None or len(model.outputs) != 2 or not all(len(spec.shape) == 3 for spec in model.outputs):
            return None
        scores, boxes = sorted(model.outputs, key=lambda spec: spec.shape[2] != 1)
        numbers = boxes.shape[2]
        if scores.shape[2] != 1 or not isinstance(numbers, int) or numbers < _FIRST_POINT or numbers % 2:
            return None
        found = [grids for grids in _ANCHORS if len(anchors(grids, size)) == scores.shape[1] == boxes.shape[1]]
        if not found:
            return None
        producer = dict(zip(model.outputs, model.producers)).get(scores)
        is_sigmoid = producer is not None and producer.operator.lower() in ("sigmoid", "logistic")
        labels, _ = class_names(model, 1)
        return cls(boxes, scores, size, found[0], not is_sigmoid, labels)

    def pictures(self) -> PictureDefaults:
        """Return the letterbox of MediaPipe's detectors."""
        if self.boxes.shape[2] == _FIRST_POINT + 2 * _PALM_POINTS:
            return PictureDefaults("letterbox", 0, 0.0, 1 / 255, "MediaPipe's palm detectors")
        return PictureDefaults("letterbox", 0, 127.5, 1 / 127.5, "MediaPipe's detectors")

    def row_scores(self) -> RowScores:
        """Return the anchors' scores, from half of the lowest that is kept: users may lower it, and results round."""
        return RowScores(self.scores.name, self.limits.confidence / 2, self.are_logits)

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the merged boxes. Raises InputError for outputs of another layout."""
        rows = single(dequantize(outputs[self.boxes.name], self.boxes.quantization), self.boxes.name, 2)
        scores = single(dequantize(outputs[self.scores.name], self.scores.quantization), self.scores.name, 2)[:, 0]
        centers = anchors(self.grids, self.size)
        if not len(rows) == len(scores) == len(centers):
            raise layout_error(self.boxes.name, rows, "one row per anchor")
        points = rows.reshape(len(rows), -1, 2).copy()
        points[:, 0] += centers
        points[:, 2:] += centers[:, np.newaxis]
        found = Candidates(
            corners_of_centers(points[:, :2].reshape(len(rows), 4)),
            sigmoid(scores) if self.are_logits else scores,
            np.zeros(len(rows), np.intp),
            points[:, 2:] if points.shape[1] > 2 else None,
        )
        return found.confident(self.limits).merged(self.limits).detections(self.limits, self.labels)


def anchors(grids: tuple[tuple[int, int], ...], size: tuple[int, int]) -> Array:
    """Return the centers [n, 2] (x, y) of all anchors in pixels, row by row."""
    found = []
    for stride, count in grids:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        down, across = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
        centers = np.stack([across * size[1] / columns, down * size[0] / rows], axis=-1).reshape(-1, 2)
        found.append(np.repeat(centers, count, axis=0))
    return np.concatenate(found).astype(np.float32)


def _labels(model: ModelFacts, operator: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the class names without a background class, and the assumptions; `operator` selects the boxes."""
    labels = model.labels
    if labels is not None:
        labels = replace(labels, names=labels.names[_offset(model) :])
    return class_names(replace(model, labels=labels), model.classes_of(operator))


def _offset(model: ModelFacts) -> int:
    """Return 1 if the first label is not a class but the background, or a placeholder for it."""
    if model.label_offset is not None:
        return model.label_offset
    names = model.labels.names if model.labels is not None else ()
    return int(bool(names) and names[0].lower() in _PLACEHOLDERS)


def _converted(model: ModelFacts) -> dict[int, TensorSpec]:
    """Return what TFLite_Detection_PostProcess computed before the conversion, by position, as metadata names it."""
    specs = {spec.name: spec for spec in model.outputs}
    names = model.metadata.get(_POST_PROCESS, "").split("\n")
    return {place: specs[name] for place, name in enumerate(names) if name in specs}


def _find_output(model: ModelFacts, name: str) -> TensorSpec | None:
    return next((spec for spec in model.outputs if spec.name.split(":")[0] == name), None)
