"""The output layout of DETR and the detectors derived from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.manifest import TensorSpec
from runtimes.decoders.boxes import (
    BoxDecoder,
    Candidates,
    Detections,
    Limits,
    corners_of_centers,
    in_pixels,
    layout_error,
    single,
)
from runtimes.model_files.facts import ModelFacts, class_names
from runtimes.task import PictureDefaults
from runtimes.tensors import dequantize, sigmoid, softmax

_MAX_QUERIES = 1000
_SOFTMAX, _SIGMOID = ("softmax",), ("sigmoid", "logistic")  # operators, in lower case
# Architectures of Hugging Face: these have a softmax with "no object", all others (RT-DETR, D-FINE, RF-DETR) a sigmoid.
_ARCHITECTURE = "ForObjectDetection"
_WITH_NO_OBJECT = ("Detr", "Yolos", "TableTransformer")


@dataclass(frozen=True)
class Queries(BoxDecoder[Detections]):
    """Decodes one box and one logit per class for each query: boxes are center and size, as shares of the input.

    DETR, YOLOS and Table Transformer have one more class, the last, for "no object" and a softmax over all; RT-DETR
    and Deformable DETR have a sigmoid per class. Some models compute it themselves. There is nothing to suppress.

    boxes, logits: The outputs' specs.
    size: Height and width of the input.
    has_no_object: Whether the last class is "no object".
    are_logits: Whether the softmax or the sigmoid is still to be computed.
    labels: The class names.
    limits: Which boxes to keep.
    """

    boxes: TensorSpec
    logits: TensorSpec
    size: tuple[int, int]
    has_no_object: bool = True
    are_logits: bool = True
    labels: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=lambda: Limits(confidence=0.5))
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> Queries | None:
        """Accept an output [1, queries, 4] whose name contains "box", and logits [1, queries, classes]."""
        size = model.picture_size
        if size is None:
            return None
        by_name = sorted(model.outputs, key=lambda spec: "box" not in spec.name.lower())
        boxes = next((spec for spec in by_name if _is_boxes(spec, model.task == "detection")), None)
        if boxes is None:
            return None
        logits = next((spec for spec in model.outputs if spec is not boxes and _are_logits(spec, boxes)), None)
        if logits is None:
            return None
        count, operator = logits.shape[2], _operator(model, logits)
        has_no_object, words = _scoring(model, count, operator)
        labels, unnamed = class_names(model, count - has_no_object if isinstance(count, int) else None)
        are_logits = operator not in (*_SOFTMAX, *_SIGMOID)
        return cls(boxes, logits, size, has_no_object, are_logits, labels, assumptions=(*words, *unnamed))

    def pictures(self) -> PictureDefaults:
        """Return the stretching of DETR's derivatives, whose scaling differs."""
        return PictureDefaults("stretch", family="DETR and its relatives")

    def decode(self, outputs: Mapping[str, Array]) -> Detections:
        """Return the confident queries. Raises InputError for outputs of another layout."""
        boxes = single(dequantize(outputs[self.boxes.name], self.boxes.quantization), self.boxes.name, 2)
        logits = single(dequantize(outputs[self.logits.name], self.logits.quantization), self.logits.name, 2)
        if boxes.shape[1] != 4 or len(logits) != len(boxes) or logits.shape[1] <= self.has_no_object:
            raise layout_error(self.boxes.name, boxes, "one box per query")
        if self.are_logits:
            logits = softmax(logits) if self.has_no_object else sigmoid(logits)
        scores = logits[:, :-1] if self.has_no_object else logits
        best = scores.argmax(axis=1)
        corners = in_pixels(corners_of_centers(boxes), self.size)
        found = Candidates(corners, scores[np.arange(len(best)), best], best)
        return found.confident(self.limits).detections(self.limits, self.labels)


def _is_boxes(spec: TensorSpec, is_detector: bool) -> bool:
    shape = spec.shape
    if len(shape) != 3 or shape[2] != 4 or not (isinstance(shape[1], str) or shape[1] <= _MAX_QUERIES):
        return False
    return is_detector or "box" in spec.name.lower()


def _are_logits(spec: TensorSpec, boxes: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.shape[1] == boxes.shape[1] and spec.shape[2] not in (0, 1)


def _operator(model: ModelFacts, spec: TensorSpec) -> str:
    """Return the operator that computes an output, in lower case; "" if it is not known."""
    producer = dict(zip(model.outputs, model.producers)).get(spec)
    return "" if producer is None else producer.operator.lower()


def _scoring(model: ModelFacts, count: int | str, operator: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether the last class is "no object", and the assumptions."""
    name = model.metadata.get("architecture", "")
    if name.endswith(_ARCHITECTURE):
        return name[: -len(_ARCHITECTURE)] in _WITH_NO_OBJECT, ()
    if operator in _SIGMOID:
        return False, ()
    if model.labels is not None and count in (len(model.labels.names), len(model.labels.names) + 1):
        return count != len(model.labels.names), ()
    return True, ("the last class is 'no object', as in DETR; pass --labels if it is a class",)
