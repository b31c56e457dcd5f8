"""Average precision as COCO defines it, computed by faster-coco-eval.

The records are tables with a row for each labeled and each found object of an input; the columns are named below. A
found object has a score, a labeled one an area and whether it is a crowd: an area with several objects, or a difficult
one, which counts neither as missed nor against what is found in it.

Instead of masks, which are large, a record has the area of each found one and its IoU with each labeled one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EngineMissingError
from runtimes.registry import install_hint

FOUND, CLASS, SCORE, BOX, CROWD, POINTS = 0, 1, 2, slice(3, 7), 7, 8  # SCORE is the area of a labeled object
MASK, IOUS = 8, 9  # the area of a found mask, or whether a labeled object has one; the IoU with each labeled object
MAX_FOUND = 100  # objects of an input that count, the most confident ones; COCO's own limit
# COCO's statistics by their place; those of fewer than 100 objects are left out.
_BOX_NAMES = {0: "map", 1: "map50", 2: "map75", 3: "map_small", 4: "map_medium", 5: "map_large", 8: "recall"}
_MASK_NAMES = {place: f"mask_{name}" for place, name in _BOX_NAMES.items()}
_POINT_NAMES = {0: "oks_map", 1: "oks_map50", 2: "oks_map75", 3: "oks_map_medium", 4: "oks_map_large", 5: "oks_recall"}


@dataclass(frozen=True)
class CocoScores:
    """Metric → value, without those that the labels do not define; and the first metric by class."""

    values: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[int, float] = field(default_factory=dict)


def object_rows(rows: Sequence[Sequence[float]], columns: int = POINTS) -> Array:
    """Return the record of an input from its rows, of which there may be none."""
    return np.asarray(rows, np.float64).reshape(-1, columns)


def compute_average_precision(
    records: Sequence[Array], sigmas: Sequence[float] | None = None, *, of_masks: bool = False
) -> CocoScores:
    """Compute COCO's statistics of boxes, of masks, or of key points if their `sigmas` are given.

    sigmas: How far people place each key point from the next person's, as a share of the object's size.
    of_masks: Whether to compare masks, whose IoUs are in the records.

    Raises EngineMissingError without faster-coco-eval.
    """
    labeled = [record[record[:, FOUND] == 0] for record in records]
    classes = sorted({int(row[CLASS]) for rows in labeled for row in rows if _counts(row, sigmas is not None)})
    if not classes:
        return CocoScores()
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        what = "computing average precision needs faster-coco-eval, which is not installed"
        raise EngineMissingError(what, install_hint("evaluate")) from None
    has_points = sigmas is not None
    objects = [_annotation(row, number, has_points) for number, rows in enumerate(labeled, 1) for row in rows]
    every = {*classes, *(int(row[CLASS]) for record in records for row in record)}
    truth = COCO(
        {
            "images": [{"id": number} for number in range(1, len(records) + 1)],
            "annotations": [{**one, "id": number} for number, one in enumerate(objects, 1)],
            "categories": [{"id": _category(one), "name": str(one)} for one in sorted(every)],
        }
    )
    found = [
        _detection(row, number, has_points) for number, rows in enumerate(records, 1) for row in rows if row[FOUND]
    ]
    names = _MASK_NAMES if of_masks else _BOX_NAMES if sigmas is None else _POINT_NAMES
    if not found:  # all is missed; the library's own answer differs between versions
        return CocoScores({next(iter(names.values())): 0.0}, dict.fromkeys(classes, 0.0))
    kind = "bbox" if sigmas is None else "keypoints"
    results = truth.loadRes(found)
    judge = COCOeval_faster(truth, results, kind, kpt_oks_sigmas=None if sigmas is None else list(sigmas))
    if of_masks:
        areas = np.concatenate([record[record[:, FOUND] == 1, MASK] for record in records])
        for one, area in zip(results.dataset["annotations"], areas.tolist(), strict=True):
            one["area"] = area
        judge.computeIoU = lambda image, category: _mask_ious(records[image - 1], category, judge.params.maxDets[-1])
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    values = {name: float(judge.stats[place]) for place, name in names.items()}
    precision = judge.eval["precision"][..., 0, -1]  # thresholds, recalls, classes: of any size, most objects
    by_class = {one: precision[..., judge.params.catIds.index(_category(one))] for one in classes}
    return CocoScores(
        {name: value for name, value in values.items() if value >= 0},
        {one: float(part[part > -1].mean()) for one, part in by_class.items() if (part > -1).any()},
    )


def _mask_ious(record: Array, category: int, most: int) -> Array | list[float]:
    """Return the IoU of the best found masks of a category, most confident first, with the labeled ones."""
    is_found = record[:, FOUND] == 1
    of_category = np.array([_category(int(one)) == category for one in record[:, CLASS]], bool)
    found, labeled = record[is_found & of_category], np.flatnonzero(of_category[~is_found])
    if not len(found) or not len(labeled):
        return []
    order = np.argsort(-found[:, SCORE], kind="stable")[:most]
    ious: Array = found[order][:, IOUS + labeled]
    return ious


def _counts(row: Array, has_points: bool) -> bool:
    """Return whether a labeled object can be missed: it is not a crowd, and has a key point if it may have any."""
    return not row[CROWD] and (not has_points or bool((row[POINTS + 2 :: 3] > 0).any()))


def _category(index: int) -> int:
    """Return a positive id: a class that the model does not have has a negative index."""
    return 2 * index + 2 if index >= 0 else -2 * index + 1


def _box(row: Array) -> list[float]:
    left, top, right, bottom = row[BOX].tolist()
    return [left, top, right - left, bottom - top]


def _annotation(row: Array, image: int, has_points: bool) -> JsonObject:
    points = row[POINTS:].tolist() if has_points else []
    return {
        "image_id": image,
        "category_id": _category(int(row[CLASS])),
        "bbox": _box(row),
        "area": float(row[SCORE]),
        "iscrowd": int(row[CROWD]),
        **({"keypoints": points, "num_keypoints": sum(one > 0 for one in points[2::3])} if points else {}),
    }


def _detection(row: Array, image: int, has_points: bool) -> JsonObject:
    points = row[POINTS:].tolist() if has_points else []
    found: JsonObject = {
        "image_id": image,
        "category_id": _category(int(row[CLASS])),
        "score": float(row[SCORE]),
    }
    return {**found, "keypoints": points} if points else {**found, "bbox": _box(row)}
