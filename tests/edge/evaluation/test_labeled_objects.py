"""Labeled objects from COCO JSON, YOLO txt and VOC XML, and `edge evaluate` with a detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.evaluation.labeled_objects import read_objects
from runtimes.errors import EdgeError, InputError
from tests.edge.inference.test_detection import answering, yolo

NAMES = {0: "cat", 1: "dog", 2: "bird"}
BOX = (64.0, 16.0, 192.0, 96.0)  # what the detector of the tests answers for a picture of 256 × 128
XML = """<annotation><filename>0.png</filename><object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>65</xmin><ymin>17</ymin><xmax>192</xmax><ymax>96</ymax></bndbox></object></annotation>"""
YOLO_LINE = "{index} 0.5 0.4375 0.5 0.625\n"


def save(place: Path, size: tuple[int, int] = (256, 128), orientation: int = 1) -> None:
    image = pytest.importorskip("PIL.Image")
    place.parent.mkdir(parents=True, exist_ok=True)
    picture = image.new("RGB", size, (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(place, exif=exif)


def coco(folder: Path, **changes: object) -> Path:
    """A data set of three pictures: a bird, a bird and a crowd of cats, and nothing."""
    for number in range(3):
        save(folder / "val" / f"{number}.png")
    birds = [{"id": 1 + n, "image_id": n, "category_id": 7, "bbox": [64, 16, 128, 80], "area": 9000} for n in range(2)]
    crowd = {"id": 9, "image_id": 1, "category_id": 2, "bbox": [0, 0, 30, 30], "iscrowd": 1}
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
        "categories": [{"id": 7, "name": "Bird"}, {"id": 2, "name": "cat"}],
        "annotations": [*birds, crowd],
    }
    place = folder / "annotations" / "instances_val.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return place


def test_coco_json_is_matched_by_name(tmp_path):
    data = read_objects(coco(tmp_path), NAMES)
    assert [path for path, _ in data.inputs] == [tmp_path / "val" / f"{number}.png" for number in range(3)]
    first, second, third = (label for _, label in data.inputs)
    assert [(one.index, one.box, one.area, one.is_crowd) for one in first.objects] == [(2, BOX, 9000, False)]
    assert [(one.index, one.area, one.is_crowd) for one in second.objects] == [(2, 9000, False), (0, 900, True)]
    assert third.objects == ()
    assert first.classes == {0, 2}


@pytest.mark.parametrize("folders", [True, False])
def test_yolo_files_hold_shares_of_the_upright_picture(tmp_path, folders):
    pictures, labels = ("images/val", "labels/val") if folders else (".", ".")
    save(tmp_path / pictures / "0.png")
    save(tmp_path / pictures / "1.jpg", (128, 256), orientation=6)  # upright it is as wide as the first
    save(tmp_path / pictures / "2.png")
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    for number in range(2):
        (tmp_path / labels / f"{number}.txt").write_text(YOLO_LINE.format(index=2))
    data = read_objects(tmp_path, NAMES)
    assert [[(one.index, one.box) for one in label.objects] for _, label in data.inputs] == [[(2, BOX)], [(2, BOX)], []]
    (tmp_path / "classes.txt").write_text("fish\nx\nDog\n", encoding="utf-8")
    data = read_objects(tmp_path, NAMES)
    assert [one.index for _, label in data.inputs for one in label.objects] == [1, 1]
    assert "fish, x" in data.notes[0]


def test_voc_boxes_count_from_one_and_difficult_ones_do_not_count(tmp_path):
    for number, (name, difficult) in enumerate([("bird", 0), ("dog", 1)]):
        save(tmp_path / "JPEGImages" / f"{number}.png")
        place = tmp_path / "Annotations" / f"{number}.xml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(XML.format(name=name, difficult=difficult))
    data = read_objects(tmp_path, NAMES)
    found = [(one.index, one.box, one.is_crowd) for _, label in data.inputs for one in label.objects]
    assert found == [(2, BOX, False), (1, BOX, True)]


def test_a_voc_object_needs_a_name_and_pictures_may_have_none(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text("<annotation></annotation>")
    ((_, label),) = read_objects(tmp_path, NAMES).inputs
    assert label.objects == ()
    (tmp_path / "a.xml").write_text(XML.format(name="", difficult=0))
    with pytest.raises(InputError, match="an object has no name"):
        read_objects(tmp_path, NAMES)


def test_a_folder_with_two_coco_files_asks_for_one(tmp_path):
    document = coco(tmp_path)
    (document.parent / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"has 2 \.json files"):
        read_objects(document.parent, NAMES)


def test_a_model_without_labels_has_the_classes_in_order(tmp_path):
    data = read_objects(coco(tmp_path), {})
    assert [one.index for _, label in data.inputs for one in label.objects] == [1, 1, 0]
    assert "--labels" in data.notes[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": [{"id": 7, "name": "fish"}, {"id": 2, "name": "x"}]}, "no class of the data set"),
        ({"categories": [{"id": 7, "name": "bird"}]}, "is not the id of a category"),
        ({"images": []}, "is not in 'images'"),
        (
            {"images": [{"id": number, "file_name": f"lost{number}.png"} for number in range(3)]},
            "its picture lost0.png is not in",
        ),
        ({"images": [{"id": n, "file_name": f"{'../' * n}0.png"} for n in range(3)]}, "outside of its folder"),
        ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, -3, 4]}]}, "is not left, top, width"),
        ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, float("nan"), 4]}]}, "is not left, top"),
        ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3]}]}, "is not left, top, width"),
        ({"annotations": {}}, "is an object, not a list"),
        ({"images": [{"id": 1, "file_name": f"{n}.png"} for n in range(2)]}, "is that of another image before it"),
        (
            {"images": [{"id": n, "file_name": "0.png"} for n in range(3)]},
            "'images.1..file_name' is that of another image before it",
        ),
        ({"categories": [{"id": 7, "name": name} for name in ("bird", "dog")]}, "is that of another category before"),
        (
            {"annotations": [{"id": 1, "image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]}] * 2},
            "is that of another annotation before it",
        ),
        ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4], "area": -1}]}, "is no area"),
        ({"images": [], "annotations": []}, "contains no images"),
        ({"images": [{"file_name": "0.png"}]}, r"images\[0\].*id"),
        ({"annotations": [{"category_id": 7, "bbox": [1, 2, 3, 4]}]}, r"annotations\[0\].*image_id"),
        ({"annotations": [{"image_id": 0, "category_id": 7}]}, r"annotations\[0\].*bbox"),
    ],
)
def test_a_coco_file_with_a_fault_is_named(tmp_path, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        read_objects(coco(tmp_path, **changes), NAMES)
    assert caught.value.hint
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1", "line 1 of"),
        ("2 0.5 0.5 1.5 0.1", "not a class and shares"),
        ("-1 0.5 0.5 0.5 0.1", "not a class and shares"),
        ("2 nan 0.5 0.5 0.1", "not a class and shares"),
        ("7 0.5 0.5 0.5 0.1", "has the class 7; the model has 3 classes"),
        ("\x00" * 5_000_000, "larger than the labels of any picture"),
    ],
)
def test_a_yolo_file_with_a_fault_is_named(tmp_path, line, words):
    save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text(line)
    with pytest.raises(InputError, match=words):
        read_objects(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation>&a;</annotation>', "defines XML entities"),
        ("<annotation>&lol;</annotation>", "is not a VOC annotation"),
        ("<annotation><object>", "is not a VOC annotation"),
        (XML.format(name="bird", difficult=0).replace("192", "10"), "a bndbox is empty"),
        (XML.format(name="bird", difficult=0).replace("192", "nan"), "a bndbox is empty"),
        (XML.format(name="fish", difficult=0), "no class of the data set"),
    ],
)
def test_a_voc_file_with_a_fault_is_named(tmp_path, text, words):
    save(tmp_path / "0.png")
    (tmp_path / "0.xml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_objects(tmp_path, NAMES)


def test_a_folder_without_labels(tmp_path):
    with pytest.raises(InputError, match="contains no pictures"):
        read_objects(tmp_path, NAMES)
    save(tmp_path / "0.png")
    with pytest.raises(InputError, match="holds no labeled objects") as caught:
        read_objects(tmp_path, NAMES)
    assert "COCO .json" in caught.value.hint


def evaluated(capsys, *words: object, status: int = 0) -> dict:
    assert main(["evaluate", *map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_detector_is_scored_in_pixels_of_the_picture(capsys, tmp_path):
    pytest.importorskip("faster_coco_eval")
    report = evaluated(capsys, yolo(tmp_path / "m.onnx"), "--data", coco(tmp_path))
    (model,) = report["models"]
    assert report["task"] == "detection"
    # Both birds are found, and one bird where none is: precision 2/3 at the last of the three equal scores.
    assert model["metrics"]["map"] == pytest.approx(model["metrics"]["map50"], abs=1e-6)
    assert model["metrics"]["recall"] == pytest.approx(1)
    assert model["classes"] == [{"index": 2, "label": "bird", "value": pytest.approx(model["metrics"]["map"])}]


def test_a_detector_that_is_wrong_is_worse(capsys, tmp_path):
    pytest.importorskip("faster_coco_eval")
    for number in range(40):
        save(tmp_path / "data" / f"{number}.png")
        (tmp_path / "data" / f"{number}.txt").write_text(YOLO_LINE.format(index=2))
    right = yolo(tmp_path / "right.onnx")
    array = np.zeros((1, 7, 84), np.float32)
    array[0, :4] = 3
    array[0, :4, 10], array[0, 6, 10] = (32, 30, 32, 8), 0.75  # half as high
    properties = {"task": "detect", "names": str(NAMES), "stride": "32", "imgsz": "[64, 64]", "args": "{'nms': False}"}
    wrong = answering(tmp_path / "wrong.onnx", {"output0": array}, properties)
    first, second = evaluated(capsys, right, wrong, "--data", tmp_path / "data")["models"]
    assert first["metrics"]["map"] == pytest.approx(1)
    assert second["metrics"]["map"] < 0.2
    (found,) = second["differences"]
    assert (found["metric"], found["verdict"]) == ("map", "worse")


def test_without_the_evaluator_the_message_names_its_extra(capsys, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert main(["evaluate", str(yolo(tmp_path / "m.onnx")), "--data", str(coco(tmp_path))]) == 4
    assert "pip install 'edgeproof[evaluate]'" in capsys.readouterr().err


def test_classes_that_do_not_match_stop_it_before_it_runs(tmp_path):
    data = coco(tmp_path, categories=[{"id": 7, "name": "fish"}, {"id": 2, "name": "x"}])
    with pytest.raises(EdgeError) as caught:
        read_objects(data, NAMES)
    assert caught.value.exit_code == 3
