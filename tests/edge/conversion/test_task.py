"""A source's task is in the manifest of its artifact, and the artifact gives the source's results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from runtimes.artifact import Artifact, TaskStatement
from runtimes.tasks.detection import DetectionTask
from tests.npm import need_engines

SIZE, STRIDES = 64, (8, 16, 32)
PROPERTIES = {"task": "detect", "names": "{0: 'light'}", "stride": "32", "args": "{'data': '/home/somebody'}"}


def lights(folder: Path) -> Path:
    """Write a detector in the layout of YOLO v8: each cell of three grids is a box, its mean brightness the score."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    boxes = [
        (stride * (column + 0.5), stride * (row + 0.5), stride, stride)
        for stride in STRIDES
        for row in range(SIZE // stride)
        for column in range(SIZE // stride)
    ]
    nodes = [helper.make_node("ReduceMean", ["images"], ["gray"], axes=[1], keepdims=1)]
    for stride in STRIDES:
        sides = [stride, stride]
        nodes.append(helper.make_node("AveragePool", ["gray"], [f"p{stride}"], kernel_shape=sides, strides=sides))
        nodes.append(helper.make_node("Reshape", [f"p{stride}", "flat"], [f"s{stride}"]))
    nodes.append(helper.make_node("Concat", [f"s{stride}" for stride in STRIDES], ["scores"], axis=2))
    nodes.append(helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1))
    graph = helper.make_graph(
        nodes,
        "lights",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, len(boxes)])],
        [
            numpy_helper.from_array(np.float32(boxes).T[np.newaxis], "boxes"),
            numpy_helper.from_array(np.int64([1, 1, -1]), "flat"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, PROPERTIES)
    onnx.save(made, folder / "lights.onnx")
    return folder / "lights.onnx"


def light(folder: Path) -> Path:
    """Write a picture for it, 128 × 64, twice as wide as high.

    x 32 to 48, y 16 to 32 is white, which is a cell of stride 8 in the input.
    """
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[16:32, 32:48] = 255
    pillow.fromarray(pixels).save(folder / "light.png")
    return folder / "light.png"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return lights(tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return light(tmp_path)


@pytest.mark.parametrize("target", ["onnx", "openvino", "tflite"])
def test_an_artifact_detects_as_its_source(capsys, tmp_path, model, picture, target):
    if target == "openvino":
        pytest.importorskip("openvino")
    if target == "tflite":
        pytest.importorskip("ai_edge_litert")
        from converters.environments import environment

        if not environment("onnx2tf").python.exists():
            pytest.skip("the environment of onnx2tf is not set up")
    out = tmp_path / "out"
    precision = "fp32" if target != "onnx" else "fp16"
    assert main(["convert", str(model), "--to", target, "--precision", precision, "--out", str(out)]) == 0
    assert "the manifest says detection, 1 class (from the property 'task')" in capsys.readouterr().err
    manifest = Artifact.open(out).manifest
    assert manifest.task == TaskStatement("detection", ("light",), {})
    assert manifest.output is None
    assert manifest.preprocess is not None
    assert (manifest.preprocess.resize, manifest.preprocess.pad) == ("letterbox", 114)
    with edge.open(model, confidence=0.9) as source, edge.open(out, confidence=0.9) as artifact:
        expected, actual = source.predict(picture), artifact.predict(picture)
    (box,) = actual.boxes
    assert box.label == "light"
    np.testing.assert_allclose(box.box, (32, 16, 48, 32), atol=0.1)
    assert DetectionTask().compare(expected, actual).agrees
    assert main(["inspect", str(out), "--json"]) == 0
    task = json.loads(capsys.readouterr().out)["task"]
    assert (task["id"], task["origins"]["task"], task["labels"]) == ("detection", "the manifest", ["light"])


@pytest.fixture
def labeled(tmp_path) -> Path:
    """Pictures with a light in a cell of the detector, and where it is."""
    pytest.importorskip("faster_coco_eval")
    pillow = pytest.importorskip("PIL.Image")
    for number in range(24):
        row, column = divmod(number, 8)
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
        place = tmp_path / "lights" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        pillow.fromarray(pixels).save(place)
        place.with_suffix(".txt").write_text(f"0 {(column + 0.5) / 8} {(row + 0.5) / 8} 0.125 0.125\n")
    return tmp_path / "lights"


def test_a_detector_is_converted_with_its_map(capsys, tmp_path, model, labeled):
    words = ["--to", "onnx", "--evaluate", str(labeled), "--out", str(tmp_path / "out")]
    assert main(["convert", str(model), *words, "--json"]) == 0
    printed = capsys.readouterr()
    assert "pictures are passed as 64 × 64 with borders of gray 114" in printed.err
    accuracy = json.loads(printed.out)["accuracy"]
    assert (accuracy["metric"], accuracy["samples"], accuracy["passed"]) == ("map", 24, True)
    assert accuracy["source"] == accuracy["artifact"] > 0.99
    assert accuracy["drop"] == 0


def test_labels_of_the_user_go_into_the_manifest(tmp_path, model):
    (tmp_path / "names.txt").write_text("lamp\n")
    inputs = edge.ConversionInputs(labels=tmp_path / "names.txt")
    result = edge.convert(model, tmp_path / "out", format="onnx", precision="fp32", inputs=inputs)
    assert Artifact.open(result.artifact).manifest.task == TaskStatement("detection", ("lamp",), {})


def test_a_statement_comes_back_from_its_json(tmp_path, model):
    manifest = edge.Artifact.open(model).manifest
    stated = replace(manifest, task=TaskStatement("pose", None, {"kpt_shape": "[4, 2]"}))
    assert edge.Manifest.from_json(stated.to_json(), "the test").task == stated.task
    assert edge.Manifest.from_json(manifest.to_json(), "the test").task is None


@pytest.mark.parametrize(
    ("options", "words"), [(["--task", "detektion"], "there is no task"), (["--task", "pose"], "as pose")]
)
def test_a_task_that_cannot_be_is_refused(capsys, model, tmp_path, options, words):
    assert main(["convert", str(model), "--to", "onnx", "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_page_knows_how_to_decode_the_outputs(tmp_path, model):
    need_engines()
    made = edge.convert(model, tmp_path / "out", format="browser", precision="fp32").artifact
    decoder = Artifact.open(made).manifest.conversion["browser"]["decoder"]
    assert (decoder["task"], decoder["layout"], decoder["labels"]) == ("detection", "YoloCells", ["light"])
    assert (decoder["size"], decoder["classes"], decoder["limits"]["iou"]) == ([SIZE, SIZE], 1, 0.45)
    again = edge.convert(model, tmp_path / "again", format="browser", precision="fp32").artifact
    assert (made / "manifest.json").read_bytes() == (again / "manifest.json").read_bytes()


def heard(folder: Path) -> Path:
    """Write a model of sounds: the scores of two classes from the mean and the spread of 800 samples."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["wave"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("ReduceL2", ["wave"], ["spread"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["mean", "spread"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "heard",
        [helper.make_tensor_value_info("wave", TensorProto.FLOAT, [1, 800])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / "heard.onnx")
    return folder / "heard.onnx"


def test_the_rate_of_a_sound_is_inspected_and_written_into_the_artifact(capsys, tmp_path):
    pytest.importorskip("openvino")
    model = heard(tmp_path)
    words = ["--task", "sound", "--rate", "8000"]
    assert main(["inspect", str(model), *words, "--json"]) == 0
    sound = json.loads(capsys.readouterr().out)["task"]["sound"]
    assert (sound["rate"], sound["step"], sound["input"]) == (8000, 800, "wave")
    assert main(["convert", str(model), "--to", "openvino", "--out", str(tmp_path / "made"), *words, "--json"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "made")]) == 0
    assert "windows of 800 samples, 8,000 a second" in capsys.readouterr().out
    with edge.open(tmp_path / "made") as artifact:
        assert artifact.prepare(takes_pictures=False).decoder.sounds().rate == 8000
