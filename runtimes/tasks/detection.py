"""Detection: boxes around objects, each with a class and a confidence."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from runtimes.decoders.boxes import Detection, Detections, overlap
from runtimes.decoders.detr import Queries
from runtimes.decoders.ssd import AnchoredBoxes, DetectionOutputRows, PostProcessedSsd, SelectedBoxes
from runtimes.decoders.yolo import YoloCells, YoloRows
from runtimes.task import Agreement, Task

__all__ = ["Detection", "DetectionTask", "Detections"]

_SAME_OBJECT = 0.5  # IoU from which two boxes show the same object, as for mAP50
_MEAN_IOU = 0.8  # of matched boxes, in results that agree
_SCORE_DIFFERENCE = 0.1  # of matched boxes; a box whose score is this close to the lowest kept may be missing


class DetectionTask(Task[Detections]):
    """Finds objects in a picture."""

    id: ClassVar[str] = "detection"
    rank: ClassVar[int] = 20
    resize: ClassVar[str] = "stretch"
    decoders = (PostProcessedSsd, SelectedBoxes, DetectionOutputRows, AnchoredBoxes, YoloRows, YoloCells, Queries)

    def compare(self, expected: Detections, actual: Detections) -> Agreement:
        """Results agree if their boxes match by class and place; boxes that only just count in one may be missing.

        Metrics: the share of matched boxes, their mean IoU, and the largest difference of scores.
        """
        pairs, lonely = _match(expected, actual)
        scores = [abs(one.score - other.score) for one, other, _ in pairs]
        ious = [iou for *_, iou in pairs]
        lowest = min((one.score for one in (*expected.boxes, *actual.boxes)), default=0.0)
        missing = [one for one in lonely if one.score > lowest + _SCORE_DIFFERENCE or not pairs]
        count = len(pairs) + len(lonely) / 2
        metrics = {
            "matched": len(pairs) / count if count else 1.0,
            "mean_iou": float(np.mean(ious)) if ious else float(not lonely),
            "score_difference": max(scores, default=float(bool(lonely))),
        }
        agrees = not missing and metrics["mean_iou"] >= _MEAN_IOU and metrics["score_difference"] <= _SCORE_DIFFERENCE
        words = f"{len(pairs)} of {len(expected.boxes)} boxes matched, {len(actual.boxes)} here"
        return Agreement(agrees, metrics, f"{words}, mean IoU {metrics['mean_iou']:.3f}")


def _match(
    expected: Detections, actual: Detections
) -> tuple[list[tuple[Detection, Detection, float]], list[Detection]]:
    """Match boxes of the same class, most confident first: (expected, actual, IoU), and the boxes without a partner."""
    rest, pairs, lonely = list(actual.boxes), [], []
    for one in expected.boxes:
        same = [other for other in rest if other.index == one.index]
        ious = overlap(np.asarray(one.box), np.asarray([other.box for other in same]).reshape(-1, 4))
        ious[[other.box == one.box for other in same]] = 1  # also a box without an area, which overlaps nothing
        if not ious.size or ious.max() < _SAME_OBJECT:
            lonely.append(one)
            continue
        partner = same[int(ious.argmax())]
        rest.remove(partner)
        pairs.append((one, partner, float(ious.max())))
    return pairs, [*lonely, *rest]
