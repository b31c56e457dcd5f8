"""Class maps and key points: masks that fit, mean IoU, OKS, and real models on their reference results."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.evaluation.labeled_masks import LabeledMask, read_masks
from edge.evaluation.labeled_objects import LabeledObject, LabeledObjects, read_poses
from edge.tasks.pose import PoseView
from edge.tasks.segmentation import SegmentationView
from runtimes.errors import InputError
from runtimes.tasks.pose import COCO, KeyPoint, Pose, Poses
from runtimes.tasks.segmentation import Segmentation
from tests.real_data import real_data

NAMES = {0: "background", 1: "cat", 2: "dog"}
VIEW = SegmentationView()


def save(place: Path, pixels: object, palette: bool = False) -> Path:
    image = pytest.importorskip("PIL.Image")
    place.parent.mkdir(parents=True, exist_ok=True)
    picture = image.fromarray(np.asarray(pixels, np.uint8))
    if palette:
        picture = picture.convert("P") if picture.mode != "L" else picture
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.save(place)
    return place


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [("images", "masks/{}.png"), ("JPEGImages", "SegmentationClass/{}.png"), (".", "{}_mask.png")],
)
def test_a_mask_is_found_by_its_pictures_name(tmp_path, pictures, masks):
    for name in "ab":
        save(tmp_path / pictures / f"{name}.png", np.zeros((2, 3, 3)))
        save(tmp_path / masks.format(name), [[0, 1, 2], [255, 0, 0]], palette=True)
    save(tmp_path / pictures / "c.png", np.zeros((2, 3, 3)))
    data = read_masks(tmp_path, NAMES)
    assert [path.name for path, _ in data.inputs] == ["a.png", "b.png"]
    assert data.inputs[0][1].classes().tolist() == [[0, 1, 2], [255, 0, 0]]
    assert data.notes == ("left out: 1 picture without a mask",)


def test_the_names_of_a_data_set_are_matched_with_the_models(tmp_path):
    save(tmp_path / "a.png", np.zeros((1, 3, 3)))
    save(tmp_path / "a_mask.png", [[0, 1, 2]])
    (tmp_path / "classes.txt").write_text("dog\nbackground\nfish\n", encoding="utf-8")
    data = read_masks(tmp_path, NAMES)
    assert data.inputs[0][1].classes().tolist() == [[2, 0, -3]]
    assert "fish" in data.notes[0]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((2, 3, 3)), "has colors"),
        ([[0, 7, 0], [0, 0, 0]], "has pixels of 7; the classes are 0 to 2"),
        ([[0, 1, 0]], "have other sizes: 3 × 1 and 3 × 2"),
        (np.zeros((1, 40_000)), "larger than edge supports"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(tmp_path, pixels, words):
    mask = LabeledMask(save(tmp_path / "a_mask.png", pixels), {one: one for one in NAMES})
    with pytest.raises(InputError, match=words):
        VIEW.record(Segmentation(np.zeros((2, 3), np.intp), (2, 3)), mask)


def test_a_folder_without_masks(tmp_path):
    save(tmp_path / "a.png", np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match=r"no picture in .* has a mask"):
        read_masks(tmp_path, NAMES)


def test_mean_iou_is_over_the_whole_data_set(tmp_path):
    """Class 1: 3 of 5 pixels that are 1 or found as 1; class 0: 4 of 6, over both pictures and not their mean."""
    masks = ([[0, 0, 1, 1], [255, 0, 0, 1]], [[1, 0, 0, 0], [0, 255, 255, 255]])
    found = ([[0, 0, 1, 1], [1, 2, 0, 1]], [[0, 0, 1, 0], [0, 0, 0, 0]])
    results = []
    for number, (mask, one) in enumerate(zip(masks, found, strict=True)):
        label = LabeledMask(save(tmp_path / f"{number}.png", mask), {one: one for one in NAMES})
        results.append((Segmentation(np.asarray(one), (2, 4)), label))
    metrics = VIEW.score(results)
    correct, other = np.concatenate([np.ravel(m) for m in masks]), np.concatenate([np.ravel(f) for f in found])
    correct, other = correct[correct != 255], other[correct != 255]
    ious = {c: ((correct == c) & (other == c)).sum() / ((correct == c) | (other == c)).sum() for c in (0, 1)}
    assert metrics.classes == pytest.approx(ious)
    assert metrics.values == pytest.approx(
        {"miou": np.mean(list(ious.values())), "pixel_accuracy": (correct == other).mean()}
    )
    assert metrics.confusions[0].times == 1
    assert {(one.label, one.predicted) for one in metrics.confusions} == {(0, 2), (1, 0), (0, 1)}


def evaluated(capsys, *words: object) -> dict:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.data
def test_deeplab_finds_the_bird(capsys, tmp_path):
    pytest.importorskip("ai_edge_litert")
    for name in ("bird_segmentation.bmp", "bird_segmentation_mask.bmp"):
        shutil.copy(real_data(f"real/{name}"), tmp_path / name)
    words = ["--labels", real_data("real/pascal_voc_segmentation_labels.txt")]
    model = real_data("edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite")
    report = evaluated(capsys, model, "--data", tmp_path, *words)
    (found,) = report["models"]
    assert report["task"] == "segmentation"
    ious = {one["label"]: one["value"] for one in found["classes"]}
    assert ious["bird"] > 0.8
    assert found["metrics"]["pixel_accuracy"] > 0.95


def person(points: list[tuple[float, float]], score: float = 0.9) -> Pose:
    named = tuple(KeyPoint(name, x, y, 0.9) for name, (x, y) in zip(COCO, points, strict=True))
    return Pose(score, (0.0, 0.0, 100.0, 200.0), named)


def test_key_points_are_scored_by_their_distance():
    pytest.importorskip("faster_coco_eval")
    places = [(float(3 * number), float(10 * number)) for number in range(len(COCO))]
    points = tuple(number for x, y in places for number in (x, y, 2.0))
    label = LabeledObjects(
        objects=(LabeledObject(index=0, box=(0.0, 0.0, 100.0, 200.0), area=12000.0, points=points),),
        classes=frozenset({0}),
    )
    view = PoseView()
    assert view.score([(Poses((person(places),)), label)]).values["oks_map"] == pytest.approx(1)
    far = [(x + 40, y + 40) for x, y in places]
    assert view.score([(Poses((person(far),)), label)]).values["oks_map"] == 0
    assert view.score([(Poses(()), label)]).values == {"oks_map": 0.0}
    with pytest.raises(InputError, match="the labels have 17 key points, the model has 1"):
        view.record(Poses((Pose(0.9, (0, 0, 1, 1), (KeyPoint("x", 1, 1, 1),)),)), label)


def test_key_points_are_scored_for_each_class(tmp_path):
    """The same poses as another class find nothing, and those of a class that nobody labeled do not count."""
    pytest.importorskip("faster_coco_eval")
    save(tmp_path / "a.png", np.zeros((100, 100, 3)))
    points = [40.0, 40.0, 2, 60.0, 40.0, 2, 60.0, 60.0, 2, 40.0, 60.0, 2]
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [30, 30, 40, 40], "area": 1600, "keypoints": points}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    ((_, label),) = read_poses(tmp_path / "a.json", {0: "horse", 1: "cat", 2: "dog"}).inputs
    assert [one.index for one in label.objects] == [2]
    places = tuple(KeyPoint(f"point {i}", *points[3 * i : 3 * i + 2], 0.9) for i in range(4))
    pose = Pose(0.9, (30.0, 30.0, 70.0, 70.0), places, 2, "dog")
    horse, cat = replace(pose, score=0.95, index=0, label="horse"), replace(pose, index=1, label="cat")
    view = PoseView()
    assert view.score([(Poses((horse, pose)), label)]).values["oks_map"] == pytest.approx(1)
    assert view.score([(Poses((cat,)), label)]).values["oks_map"] == 0
    assert "dog  x 30 to 70" in view.describe(Poses((pose,)))
    ((_, alone),) = read_poses(tmp_path / "a.json", {}).inputs  # a model that knows a single class
    assert view.score([(Poses((replace(pose, index=None),)), alone)]).values["oks_map"] == pytest.approx(1)


def test_data_without_key_points(tmp_path):
    save(tmp_path / "a.png", np.zeros((2, 3, 3)))
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match="has no key points"):
        read_poses(tmp_path / "a.json", {})


@pytest.mark.data
def test_movenet_finds_the_reference_key_points(capsys, tmp_path):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("faster_coco_eval")
    image = pytest.importorskip("PIL.Image")
    shutil.copy(real_data("real/squat.bmp"), tmp_path / "squat.bmp")
    with image.open(tmp_path / "squat.bmp") as picture:
        width, height = picture.size
    name = "real/movenet_single_pose_lightning_ptq_reference.csv"
    rows = list(csv.DictReader(real_data(name).read_text(encoding="utf-8").splitlines()))
    points = [(float(row["keypoint_x"]) * width, float(row["keypoint_y"]) * height) for row in rows]
    xs, ys = zip(*points, strict=True)
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    document = {
        "images": [{"id": 1, "file_name": "squat.bmp"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": box, "keypoints": [v for x, y in points for v in (x, y, 2)]}
        ],
    }
    (tmp_path / "squat.json").write_text(json.dumps(document), encoding="utf-8")
    model = real_data("real/movenet_single_pose_lightning_ptq.tflite")
    report = evaluated(capsys, model, "--data", tmp_path / "squat.json")
    assert report["task"] == "pose"
    assert report["models"][0]["metrics"]["oks_map50"] == pytest.approx(1)
