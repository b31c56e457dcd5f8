"""`edge run` and `edge inspect` with real detectors, and with graphs that output known boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from runtimes.tasks.detection import Detections
from tests.real_data import real_data

SIZE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
NAMES = "{0: 'cat', 1: 'dog', 2: 'bird'}"
ULTRALYTICS = {"task": "detect", "names": NAMES, "stride": "32", "imgsz": "[64, 64]", "args": "{'nms': False}"}
BOX = (16.0, 20.0, 48.0, 40.0)  # in pixels of the input


def answering(
    place: Path,
    outputs: dict[str, np.ndarray],
    properties: dict[str, str],
    shape: Sequence[int | str] = (1, 3, SIZE, SIZE),
    dtype: str = "float32",
    shapes: Mapping[str, Sequence[int | str]] | None = None,
) -> Path:
    """A model that takes a picture and answers always the same, multiplied by the maximum of the picture.

    shape, dtype: Of its input.
    shapes: Of outputs, where the file states another one than that of the array.
    """
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels"], ["most"], keepdims=0),
    ]
    nodes += [helper.make_node("Mul", [f"{name}_constant", "most"], [name]) for name in outputs]
    stated = {name: array.shape for name, array in outputs.items()} | dict(shapes or {})
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in stated.items()]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
        infos,
        [numpy_helper.from_array(array, f"{name}_constant") for name, array in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, properties)
    onnx.save(model, place)
    return place


def yolo(place: Path, properties: dict[str, str] = ULTRALYTICS) -> Path:
    array = np.zeros((1, 7, CELLS), np.float32)
    left, top, right, bottom = BOX
    array[0, :4] = 3
    array[0, :4, 10] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    array[0, 4 + 2, 10] = 0.75
    return answering(place, {"output0": array}, properties)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """White, twice as wide as high: in the input it takes rows 16 to 48, and a gray of 114 the rest."""
    pillow = pytest.importorskip("PIL.Image")
    place = tmp_path / "wide.png"
    pillow.new("RGB", (256, 128), (255, 255, 255)).save(place)
    return place


def inspected(capsys, path: Path, *options: str) -> dict:
    assert main(["inspect", str(path), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["task"]


# ---- made graphs


def test_a_yolo_of_ultralytics_says_what_it_does(capsys, tmp_path):
    task = inspected(capsys, yolo(tmp_path / "m.onnx"))
    assert (task["id"], task["layout"], task["labels"]) == ("detection", "YoloCells", ["cat", "dog", "bird"])
    assert task["origins"] == {
        "task": "the property 'task'",
        "labels": "the property 'names'",
        "picture": "the file's metadata",
    }
    picture = task["picture"]
    assert (picture["resize"], picture["pad"], picture["crop"], picture["color"]) == ("letterbox", 114, [64, 64], "RGB")
    np.testing.assert_allclose(picture["scale"], [1 / 255] * 3)
    assert task["assumptions"] == []


def test_a_yolo_runs_without_any_option(capsys, tmp_path, picture):
    assert main(["run", str(yolo(tmp_path / "m.onnx")), str(picture), "--json", "--draw", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert row["task"] == "detection"
    (box,) = row["result"]
    assert (box["label"], box["index"]) == ("bird", 2)
    assert box["score"] == pytest.approx(0.75)  # 255 × 1/255: the picture is scaled as the metadata says
    np.testing.assert_allclose(box["box"], [64, 16, 192, 96], atol=0.01)  # (x × 4, (y − 16) × 4)
    assert printed.err == ""
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(tmp_path / "out" / "wide.png") as drawn:
        assert drawn.size == (256, 128)
        assert drawn.getpixel((64, 60)) != (255, 255, 255)
        assert drawn.getpixel((130, 60)) == (255, 255, 255)


def test_text_for_people(capsys, tmp_path, picture):
    assert main(["run", str(yolo(tmp_path / "m.onnx")), str(picture)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  0.7500  bird (2)  x 64 to 192, y 16 to 96"
    assert main(["run", str(tmp_path / "m.onnx"), str(picture), "--confidence", "0.8"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  nothing found"


def test_without_metadata_the_shape_tells_a_yolo_and_the_assumptions_are_printed(capsys, tmp_path, picture):
    path = yolo(tmp_path / "m.onnx", {})
    task = inspected(capsys, path)
    assert (task["id"], task["labels"]) == ("detection", None)
    assert main(["run", str(path), str(picture), "--json"]) == 0
    printed = capsys.readouterr()
    np.testing.assert_allclose(json.loads(printed.out)[0]["result"][0]["box"], [64, 16, 192, 96], atol=0.01)
    for word in ("0…1, as YOLO models", "fit into 64 × 64", "no names (--labels)"):
        assert word in printed.err


def test_the_name_of_a_file_tells_nothing(capsys, tmp_path):
    path = answering(tmp_path / "yolov8n.onnx", {"y": np.ones((1, 7, CELLS + 2), np.float32)}, {})
    assert inspected(capsys, path)["id"] == "tensors"


def test_options_override_what_the_file_says(capsys, tmp_path, picture):
    (tmp_path / "names.txt").write_text("Katze\nHund\nVogel\n", encoding="utf-8")
    path = yolo(tmp_path / "m.onnx")
    options = ["--labels", str(tmp_path / "names.txt"), "--resize", "stretch"]
    assert main(["run", str(path), str(picture), "--json", *options]) == 0
    (box,) = json.loads(capsys.readouterr().out)[0]["result"]
    assert box["label"] == "Vogel"
    np.testing.assert_allclose(box["box"], [64, 40, 192, 80], atol=0.01)
    assert main(["run", str(path), str(picture), "--json", "--task", "tensors"]) == 0
    assert set(json.loads(capsys.readouterr().out)[0]["result"]) == {"output0"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "detektion"], "there is no task 'detektion'"),
        (["--task", "classification"], "cannot decode these outputs as classification"),
        (["--draw", "OUT", "--task", "tensors"], "cannot be drawn"),
    ],
)
def test_what_cannot_be_is_one_clear_line(capsys, tmp_path, picture, options, words):
    path = yolo(tmp_path / "m.onnx")
    assert main(["run", str(path), str(picture), *options]) == 2
    assert words in capsys.readouterr().err


def test_labels_that_do_not_fit_are_one_clear_line(capsys, tmp_path, picture):
    (tmp_path / "names.txt").write_text("only\n")
    assert main(["run", str(yolo(tmp_path / "m.onnx")), str(picture), "--labels", str(tmp_path / "names.txt")]) == 3
    assert "has 1 label; the model has 3 classes" in capsys.readouterr().err


def test_pictures_of_the_same_name_are_drawn_into_files_of_their_own(capsys, tmp_path, picture):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "wide.png").write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    paths = [str(picture), str(tmp_path / "b" / "wide.png")]
    assert main(["run", str(yolo(tmp_path / "m.onnx")), *paths, "--draw", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["wide-2.png", "wide.png"]


def test_a_folder_of_hugging_face_says_what_its_onnx_file_does(capsys, tmp_path, picture):
    boxes, logits = np.full((1, 5, 4), 0.1, np.float32), np.full((1, 5, 4), -6, np.float32)
    logits[..., -1] = 6
    boxes[0, 3], logits[0, 3, 1] = (0.5, 0.5, 0.5, 0.25), 14
    (tmp_path / "onnx").mkdir()
    path = answering(tmp_path / "onnx" / "model.onnx", {"logits": logits, "pred_boxes": boxes}, {})
    names = {"0": "cat", "1": "dog", "2": "bird"}
    config = {"architectures": ["YolosForObjectDetection"], "id2label": names}
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = {"do_rescale": True, "do_normalize": True, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    task = inspected(capsys, path)
    assert (task["layout"], task["labels"]) == ("Queries", ["cat", "dog", "bird"])
    assert (task["origins"]["task"], task["origins"]["labels"]) == ("config.json", "config.json")
    assert main(["run", str(path), str(picture), "--json"]) == 0
    (box,) = json.loads(capsys.readouterr().out)[0]["result"]
    assert box["label"] == "dog"
    np.testing.assert_allclose(box["box"], [64, 48, 192, 80], atol=0.01)
    (tmp_path / "config.json").write_text("{")
    assert main(["run", str(path), str(picture)]) == 3
    assert "config.json cannot be read" in capsys.readouterr().err


def test_detectors_with_a_free_number_of_boxes_take_several_pictures(capsys, tmp_path):
    """A model that answers as many rows as its picture has white pixels in its first line."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    pillow = pytest.importorskip("PIL.Image")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Slice", ["images", "from", "to"], ["line"]),
        helper.make_node("NonZero", ["line"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["numbers", "last", "end"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[1, 0]),
        helper.make_node("Mul", ["rows", "corners"], ["scaled"]),
        helper.make_node("Add", ["scaled", "boxes"], ["moved"]),
        helper.make_node("Unsqueeze", ["moved", "batch"], ["output0"]),
    ]
    constants = {
        "from": np.int64([0, 0, 0, 0]),
        "to": np.int64([1, 1, 1, SIZE]),
        "last": np.int64([3]),
        "end": np.int64([4]),
        "corners": np.float32([[1, 0, 1, 0, 0, 0]]),
        "boxes": np.float32([[0, 0, 1, 8, 0.9, 0]]),
        "batch": np.int64([0]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, "n", 6])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {**ULTRALYTICS, "args": "{'nms': True}"})
    onnx.save(made, tmp_path / "m.onnx")
    paths = []
    for count in (2, 5, 0):
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[:, :count] = 255
        paths.append(str(tmp_path / f"{count}.png"))
        pillow.fromarray(pixels).save(paths[-1])
    assert main(["run", str(tmp_path / "m.onnx"), *paths, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [[box["box"] for box in row["result"]] for row in rows] == [
        [[float(x), 0.0, float(x + 1), 8.0] for x in range(count)] for count in (2, 5, 0)
    ]


def test_the_raw_outputs_are_saved(capsys, tmp_path, picture):
    path, place = yolo(tmp_path / "m.onnx"), tmp_path / "raw.npz"
    assert main(["run", str(path), str(picture), "--save", str(place)]) == 0
    with np.load(place) as found:
        assert {name: array.shape for name, array in found.items()} == {"output0": (1, 7, CELLS)}
    capsys.readouterr()
    place.unlink()
    assert main(["run", str(path), str(picture), str(picture), "--save", str(place)]) == 2
    assert "one input with --save" in capsys.readouterr().err
    assert not place.exists()  # it is known before anything runs
    assert main(["run", str(path), str(picture), "--save", str(tmp_path / "no" / "raw.npz")]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_the_properties_of_a_tflite_file_are_packed_with_it(tmp_path):
    import zipfile

    from edge.inspection.tflite_metadata import read_packed_properties

    path = tmp_path / "m.tflite"
    path.write_bytes(b"TFL3" * 100)
    assert read_packed_properties(path) == {}
    for name, text in (("metadata.json", json.dumps({"stride": 32})), ("temp_meta.txt", "{'stride': 32}")):
        path.write_bytes(b"TFL3" * 100)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, text)
        assert read_packed_properties(path) == {"stride": "32"}


# ---- real models


@pytest.mark.data
def test_both_faces_are_found(capsys, tmp_path):
    model, picture = real_data("real/face_detection_short_range.tflite"), real_data("real/face.jpg")
    assert main(["run", str(model), str(picture), "--json", "--draw", str(tmp_path)]) == 0
    first, second = json.loads(capsys.readouterr().out)[0]["result"]
    assert first["score"] == pytest.approx(0.968, abs=0.01)
    assert second["score"] == pytest.approx(0.881, abs=0.01)
    np.testing.assert_allclose(first["box"], [252, 67, 357, 171], atol=3)
    np.testing.assert_allclose(second["box"], [129, 99, 232, 201], atol=4)
    assert len(first["points"]) == 6
    assert (tmp_path / "face.png").is_file()


@pytest.mark.data
def test_cars_are_found_by_an_ssd_that_takes_states_beside_the_picture():
    pictures = [real_data(f"real/traffic_000{number}.bmp") for number in (1, 2)]
    found = edge.run(real_data("real/traffic_model.tflite"), pictures, confidence=0.3)
    boxes = [[(one.index, round(one.score, 3)) for one in answer.result.boxes] for answer in found]
    assert boxes == [[(1, 0.414), (0, 0.395), (1, 0.316)], [(1, 0.457), (0, 0.375), (1, 0.336), (0, 0.301)]]
    assert isinstance(found[0].result, Detections)
    np.testing.assert_allclose(found[0].result.boxes[1].box, [69, 149, 140, 198], atol=1)
    assert found[0].draw().size == (256, 256)
