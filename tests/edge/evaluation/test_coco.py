"""COCO's average precision: the same figures as pycocotools on made data sets, and the rules of the data format."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from edge.evaluation.coco import compute_average_precision, object_rows
from edge.tasks.pose import _SIGMAS

COUNT, CLASSES = 60, 4
STATISTICS = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall": 8}


@pytest.fixture(autouse=True)
def _needs() -> None:
    pytest.importorskip("faster_coco_eval")


def made(kind: str, seed: int = 0) -> list[np.ndarray]:
    """Records of labeled objects, and of found ones that are shifted, missed, doubled, of another class or nowhere."""
    draw, records = np.random.default_rng(seed), []
    for number in range(COUNT):
        rows = []
        is_empty = kind == "empty images" and number % 3 == 0
        for _ in range(0 if is_empty else int(draw.integers(1, 7))):
            left, top = draw.uniform(0, 300, 2)
            width, height = draw.uniform(3, 28, 2) if kind == "small" else draw.uniform(10, 160, 2)
            index, box = float(draw.integers(CLASSES)), (left, top, left + width, top + height)
            is_crowd = kind == "crowd" and draw.random() < 0.3
            rows.append([0, index, width * height * (0.7 if kind == "areas" else 1), *box, is_crowd])
            for _ in range(int(draw.choice([0, 1, 1, 1, 2]))):
                score = draw.integers(1, 4) / 4 if kind == "ties" else draw.random()
                shift = draw.normal(0, 0.08, 4) * [width, height, width, height]
                rows.append([1, draw.choice([index, 3.0], p=[0.9, 0.1]), score, *(np.array(box) + shift), 0])
        if is_empty and draw.random() < 0.5:
            rows.append([1, 0, draw.random(), 5, 5, 50, 60, 0])
        records.append(object_rows(rows))
    return records


def persons(seed: int = 0) -> list[np.ndarray]:
    """Records of persons with 17 key points, of whom some have none that is labeled."""
    draw, records = np.random.default_rng(seed), []
    for _ in range(COUNT):
        rows = []
        for _ in range(int(draw.integers(0, 4))):
            left, top, width, height = *draw.uniform(0, 300, 2), *draw.uniform(40, 160, 2)
            places = draw.uniform([left, top], [left + width, top + height], (17, 2))
            visible = draw.integers(0, 3, 17) * (draw.random() < 0.85)
            box, area = (left, top, left + width, top + height), width * height * 0.6
            rows.append([0, 0, area, *box, draw.random() < 0.1, *np.column_stack([places, visible]).reshape(-1)])
            if draw.random() < 0.8:
                shifted = places + draw.normal(0, 0.04, (17, 2)) * np.sqrt(area)
                found = np.column_stack([shifted, np.ones(17)]).reshape(-1)
                rows.append([1, 0, draw.random(), *box, 0, *found])
        records.append(object_rows(rows, 8 + 51))
    return records


def by_pycocotools(records: list[np.ndarray], kind: str = "bbox") -> np.ndarray:
    """Its statistics, from objects that are written as its own format wants them."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [(number, row) for number, record in enumerate(records, 1) for row in record.tolist()]
    boxes = [[row[3], row[4], row[5] - row[3], row[6] - row[4]] for _, row in rows]
    truth, found = [], []
    for (number, row), box in zip(rows, boxes, strict=True):
        one = {"image_id": number, "category_id": int(row[1]) + 1}
        one |= (
            {"keypoints": row[8:], "num_keypoints": sum(v > 0 for v in row[10::3])} if len(row) > 8 else {"bbox": box}
        )
        if row[0]:
            found.append({**one, "score": row[2]})
        else:
            truth.append({**one, "bbox": box, "id": len(truth) + 1, "area": row[2], "iscrowd": int(row[7])})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(1, len(records) + 1)],
            "annotations": truth,
            "categories": [{"id": one + 1} for one in range(CLASSES)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("kind", ["plain", "crowd", "small", "empty images", "ties", "areas"])
def test_the_figures_are_those_of_pycocotools(kind):
    records = made(kind)
    expected, found = by_pycocotools(records), compute_average_precision(records).values
    assert 0.1 < found["map"] < 0.9
    for name, place in STATISTICS.items():
        assert found.get(name, -1.0) == pytest.approx(expected[place], abs=1e-6), name


def test_key_points_are_judged_as_by_pycocotools():
    records = persons()
    expected, found = by_pycocotools(records, "keypoints"), compute_average_precision(records, _SIGMAS).values
    assert 0.1 < found["oks_map"] < 0.9
    for place, name in enumerate(
        ("oks_map", "oks_map50", "oks_map75", "oks_map_medium", "oks_map_large", "oks_recall")
    ):
        assert found.get(name, -1.0) == pytest.approx(expected[place], abs=1e-6), name
    uniform = compute_average_precision(records, (1 / 17,) * 17).values
    assert abs(uniform["oks_map"] - expected[0]) > 1e-3


def test_persons_without_labeled_key_points_define_nothing():
    nobody = object_rows([[0, 0, 64, 1, 1, 9, 9, 0, *[0.0] * 51]], 8 + 51)
    assert compute_average_precision([nobody], _SIGMAS).values == {}


@pytest.mark.parametrize("fault", ["crowds as objects", "areas of boxes", "boxes by corners"])
def test_a_wrong_reading_of_the_data_would_be_noticed(fault):
    records = made("areas" if fault == "areas of boxes" else "crowd")
    wrong = [record.copy() for record in records]
    for record in wrong:
        labeled = record[:, 0] == 0
        if fault == "crowds as objects":
            record[labeled, 7] = 0
        elif fault == "areas of boxes":
            record[labeled, 2] *= 3
        else:
            record[labeled, 5:7] += record[labeled, 3:5]
    expected, found = by_pycocotools(records), compute_average_precision(wrong).values
    assert max(abs(found.get(name, -1) - expected[place]) for name, place in STATISTICS.items()) > 1e-3


def test_perfect_boxes_score_one_and_none_score_zero():
    truth = [record[record[:, 0] == 0] for record in made("plain")]
    perfect = [np.concatenate([rows, np.column_stack([rows[:, 0] + 1, rows[:, 1:]])]) for rows in truth]
    for record in perfect:
        record[record[:, 0] == 1, 2] = 0.5
    found = compute_average_precision(perfect)
    assert found.values["map"] == pytest.approx(1)
    assert found.classes == pytest.approx(dict.fromkeys(range(CLASSES), 1.0))
    assert compute_average_precision(truth).values == {"map": 0.0}
    assert compute_average_precision(truth).classes == dict.fromkeys(range(CLASSES), 0.0)


def test_without_objects_nothing_is_defined():
    assert compute_average_precision([object_rows([]), object_rows([[1, 0, 0.5, 1, 1, 9, 9, 0]])]).values == {}
    assert compute_average_precision([object_rows([[0, 0, 64, 1, 1, 9, 9, 1]])]).values == {}  # a crowd alone


def test_the_average_is_over_the_classes_that_are_labeled():
    records = made("plain")
    found = compute_average_precision(records)
    assert found.values["map"] == pytest.approx(np.mean(list(found.classes.values())))
    with_unknown = [*records, object_rows([[0, -3, 100, 1, 1, 11, 11, 0]])]  # a class that the model does not have
    again = compute_average_precision(with_unknown)
    assert again.classes[-3] == 0
    assert again.values["map"] == pytest.approx(found.values["map"] * CLASSES / (CLASSES + 1))
