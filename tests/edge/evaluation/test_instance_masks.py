"""Average precision of masks: the figures of pycocotools, and outlines in COCO JSON and YOLO txt."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from edge.evaluation.coco import compute_average_precision
from edge.evaluation.instance_masks import RunLengths
from edge.evaluation.labeled_objects import LabeledObject, LabeledObjects, read_objects, read_poses
from edge.tasks.instances import InstancesView
from runtimes.errors import InputError
from runtimes.tasks.detection import Detection
from runtimes.tasks.instances import Instance, Instances
from tests.edge.evaluation.test_labeled_objects import NAMES, save

SIZE, COUNT, CLASSES = (320, 240), 40, 3
STATISTICS = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall": 8}
VIEW = InstancesView()


def blob(draw: np.random.Generator, center: np.ndarray, radii: np.ndarray, corners: int = 12) -> tuple[float, ...]:
    angles = np.arange(corners) / corners * 2 * np.pi
    points = center + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii * draw.uniform(0.7, 1, (corners, 1))
    return tuple(np.clip(points, 0, SIZE).reshape(-1).tolist())


def bounds(polygon: tuple[float, ...]) -> tuple[float, float, float, float]:
    return min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])


def made(kind: str) -> list[tuple[Instances, LabeledObjects]]:
    """Labeled outlines, some of two parts, some crowds as run lengths; and found ones that are near, missed or odd."""
    draw, pairs = np.random.default_rng(4), []
    for number in range(COUNT):
        objects, found = [], []
        for _ in range(0 if kind == "empty images" and number % 3 == 0 else int(draw.integers(1, 5))):
            index, center = int(draw.integers(CLASSES)), draw.uniform(0, SIZE)
            radii = draw.uniform(4, 15, 2) if kind == "small" else draw.uniform(8, 80, 2)
            parts = tuple(
                blob(draw, center + shift, radii) for shift in ((0, 0), radii * 1.5)[: 1 + (draw.random() < 0.3)]
            )
            outline, is_crowd = parts, kind == "crowd" and draw.random() < 0.4
            if is_crowd:
                left, width = int(draw.integers(0, 200)), 60
                before, inside = left * SIZE[1], width * SIZE[1]
                outline = RunLengths(
                    height=SIZE[1], width=SIZE[0], counts=(before, inside, SIZE[0] * SIZE[1] - before - inside)
                )
            area = float(draw.uniform(0.5, 1) * radii.prod() * 3)
            objects.append(
                LabeledObject(index=index, box=bounds(parts[0]), area=area, is_crowd=is_crowd, outline=outline)
            )
            for _ in range(int(draw.choice([0, 1, 1, 2]))):
                near = np.reshape(parts[0], (-1, 2)) + draw.normal(0, 0.06, 2) * radii
                polygon = np.clip(near, 0, SIZE)
                score = draw.integers(1, 4) / 4 if kind == "ties" else draw.random()
                box = bounds(tuple(polygon.reshape(-1).tolist()))
                found.append(Instance(Detection(index, None, float(score), box), tuple(map(tuple, polygon.tolist()))))
        label = LabeledObjects(objects=tuple(objects), classes=frozenset(range(CLASSES)), size=SIZE)
        pairs.append((Instances(tuple(sorted(found, key=lambda one: -one.detection.score))), label))
    return pairs


def by_pycocotools(pairs: list[tuple[Instances, LabeledObjects]]) -> np.ndarray:
    pytest.importorskip("pycocotools")
    from pycocotools import mask as masks
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for number, (result, label) in enumerate(pairs, 1):
        for one in label.objects:
            outline = one.outline
            if isinstance(outline, RunLengths):
                segmentation = {"size": [outline.height, outline.width], "counts": list(outline.counts)}
            else:
                segmentation = [list(part) for part in outline]
            facts = {"image_id": number, "category_id": one.index + 1, "area": one.area, "iscrowd": int(one.is_crowd)}
            truth.append({**facts, "segmentation": segmentation, "id": len(truth) + 1, "bbox": [0, 0, 1, 1]})
        for instance in result.instances:
            polygon = [number for point in instance.polygon for number in point]
            runs = masks.merge(masks.frPyObjects([polygon], SIZE[1], SIZE[0]))
            one = instance.detection
            found.append({"image_id": number, "category_id": one.index + 1, "score": one.score, "segmentation": runs})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n, "width": SIZE[0], "height": SIZE[1]} for n in range(1, len(pairs) + 1)],
            "annotations": truth,
            "categories": [{"id": one + 1} for one in range(CLASSES)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("kind", ["plain", "crowd", "small", "empty images", "ties"])
def test_masks_are_judged_as_by_pycocotools(kind):
    pytest.importorskip("faster_coco_eval")
    pairs = made(kind)
    expected, found = by_pycocotools(pairs), VIEW.score(pairs)
    assert 0.1 < found.values["mask_map"] < 0.9
    for name, place in STATISTICS.items():
        assert found.values.get(f"mask_{name}", -1.0) == pytest.approx(expected[place], abs=1e-6), name
    assert next(iter(found.values)) == "mask_map"
    assert found.values["mask_map"] == pytest.approx(np.mean(list(found.classes.values())))
    assert {"map", "map50", "recall"} < set(found.values)


def test_a_mask_that_is_shifted_in_its_box_is_worse():
    pytest.importorskip("faster_coco_eval")
    pairs = made("plain")
    wrong = [
        (
            Instances(
                tuple(Instance(one.detection, tuple((x + 15, y) for x, y in one.polygon)) for one in result.instances)
            ),
            label,
        )
        for result, label in pairs
    ]
    right, shifted = VIEW.score(pairs).values, VIEW.score(wrong).values
    assert shifted["map"] == right["map"]
    assert shifted["mask_map"] < right["mask_map"] - 0.05


def test_labels_without_outlines_give_the_metrics_of_boxes():
    pytest.importorskip("faster_coco_eval")
    label = LabeledObjects(
        objects=(LabeledObject(index=0, box=(0.0, 0.0, 9.0, 9.0), area=81.0),), classes=frozenset({0})
    )
    found = Instances((Instance(Detection(0, None, 0.9, (0.0, 0.0, 9.0, 9.0)), ()),))
    values = VIEW.score([(found, label)]).values
    assert values["map"] == pytest.approx(1)
    assert not any(name.startswith("mask") for name in values)
    assert compute_average_precision([VIEW.record(Instances(()), label)]).values == {"map": 0.0}


def write_coco(folder: Path, segmentation: object) -> Path:
    save(folder / "a.png", (4, 2))
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": segmentation}],
    }
    (folder / "a.json").write_text(json.dumps(document), encoding="utf-8")
    return folder / "a.json"


@pytest.mark.parametrize(
    ("segmentation", "outline"),
    [
        ([[0, 0, 2, 0, 2, 2]], ((0, 0, 2, 0, 2, 2),)),
        ({"size": [2, 4], "counts": [2, 4, 2]}, RunLengths(height=2, width=4, counts=(2, 4, 2))),
        ({"size": [2, 4], "counts": "222"}, RunLengths(height=2, width=4, counts="222")),
        ([], ()),
    ],
)
def test_outlines_in_coco_json(tmp_path, segmentation, outline):
    ((_, label),) = read_objects(write_coco(tmp_path, segmentation), NAMES).inputs
    assert (label.objects[0].outline, label.size) == (outline, (4, 2))


@pytest.mark.parametrize(
    "segmentation",
    [
        "all",
        [[0, 0, 1]],
        [[0, 0, 1, "x", 1, 1]],
        [[0, 0, 1e9, 0, 1, 1]],
        [[0, 0, float("nan"), 0, 1, 1]],
        {"size": [2, 4]},
        {"size": [2, 4], "counts": [1, 2]},
        {"size": [2, 4], "counts": [-2, 10]},
        {"size": [1 << 40, 4], "counts": [1]},
        {"size": [2], "counts": [2]},
    ],
)
def test_an_outline_with_a_fault_is_named(tmp_path, segmentation):
    with pytest.raises(InputError, match="segmentation"):
        read_objects(write_coco(tmp_path, segmentation), NAMES)


def yolo_objects(folder: Path, line: str, read=read_objects) -> tuple[LabeledObject, ...]:
    save(folder / "0.png", (200, 100))
    (folder / "0.txt").write_text(line + "\n", encoding="utf-8")
    ((_, label),) = read(folder, {}).inputs
    return label.objects


def test_an_outline_in_a_yolo_file_has_its_bounds_as_box(tmp_path):
    (found,) = yolo_objects(tmp_path, "2 0.1 0.2 0.5 0.2 0.5 0.6")
    assert found.outline == ((20.0, 20.0, 100.0, 20.0, 100.0, 60.0),)
    assert found.box == (20, 20, 100, 60)
    assert found.area == pytest.approx(80 * 40 / 2)
    assert found.points == ()


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ("0.5 0.5 2 0 0 0 0.25 1 1", (100, 50, 2, 0, 0, 0, 50, 100, 1)),
        ("0.5 0.5 0 0 0.25 1 0.1 0.1", (100, 50, 2, 0, 0, 0, 50, 100, 2, 20, 10, 2)),
    ],
)
def test_key_points_in_a_yolo_file(tmp_path, points, expected):
    (found,) = yolo_objects(tmp_path, f"0 0.5 0.5 0.5 0.5 {points}", read_poses)
    assert found.points == pytest.approx(expected)
    assert found.box == (50, 25, 150, 75)
    assert found.area == pytest.approx(100 * 50 * 0.53)  # ultralytics' estimate, without a mask


def test_a_detector_on_poses_is_judged_by_their_boxes(tmp_path):
    (found,) = yolo_objects(tmp_path, "0 0.5 0.5 0.5 0.5 0.5 0.5 2 0.1 0.1 2")
    assert (found.box, found.area, found.outline) == ((50, 25, 150, 75), 5000, ())


@pytest.mark.parametrize("line", ["0 0.1 0.2 0.3", "0 0.1 0.2 0.3 0.4 0.5", "0 0.1 0.2 1.5 0.2 0.5 0.6", "0 nan 0 1 1"])
def test_a_yolo_line_of_another_form_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r"line 1 of .*0\.txt"):
        yolo_objects(tmp_path, line)
