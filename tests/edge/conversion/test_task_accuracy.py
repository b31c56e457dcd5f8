"""`edge convert --evaluate` with models that do not classify: the metric of their task, and layers kept in float."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from runtimes.errors import InputError, ProofError
from tests.edge.conversion.test_task import light, lights

COUNT, SIDE = 24, 16
WAY = ["--task", "segmentation", "--mean", "0", "--scale", "0.00392156862745098", "--resize", "stretch"]


@pytest.fixture
def segmenter(tmp_path) -> Path:
    """Find the strongest color; beside the colors flows 300 times their sum, which int8 cannot hold with them."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    colors = np.eye(3, dtype=np.float32)
    first = np.concatenate([colors, np.full((1, 3), 300, np.float32)]).reshape(4, 3, 1, 1)
    second = np.concatenate([colors, np.zeros((3, 1), np.float32)], axis=1).reshape(3, 4, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["positive"]),
        helper.make_node("Conv", ["positive", "second"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("image", kind.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", kind.FLOAT, [1, 3, SIDE, SIDE])],
        [onnx.numpy_helper.from_array(first, "first"), onnx.numpy_helper.from_array(second, "second")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "segmenter.onnx")
    return tmp_path / "segmenter.onnx"


@pytest.fixture
def colors(tmp_path) -> Path:
    """Pictures with their strongest colors as masks, and other pictures for calibration."""
    image, draw = pytest.importorskip("PIL.Image"), np.random.default_rng(0)
    for folder in ("calibration", "data/images", "data/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(COUNT):
        image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(
            tmp_path / "calibration" / f"{number}.png"
        )
        pixels = draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{number}.png")
        image.fromarray(pixels.argmax(axis=2).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


def int8(capsys, model: Path, data: Path, drop: str, *, status: int = 0) -> dict:
    place = ["--calibration", str(data.parent / "calibration"), "--out", str(data.parent / "out"), "--json"]
    words = ["--to", "onnx", "--precision", "int8", "--evaluate", str(data), "--max-drop", drop]
    assert main(["convert", str(model), *words, *WAY, *place]) == status
    printed = capsys.readouterr()
    return json.loads(printed.out if status == 0 else printed.err.splitlines()[-1])


def test_layers_that_cost_a_segmenter_its_iou_stay_in_float_and_are_named(capsys, segmenter, colors):
    found = int8(capsys, segmenter, colors, "0.02")["accuracy"]
    assert (found["metric"], found["samples"], found["passed"]) == ("miou", COUNT, True)
    assert found["before"]["artifact"] < 0.5 < 0.98 <= found["artifact"]
    assert "mixed" in " ".join(found["kept"])
    manifest = json.loads((colors.parent / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["proof"]["accuracy"]["kept"] == found["kept"]
    words = ["evaluate", str(segmenter), str(colors.parent / "out"), "--data", str(colors), *WAY, "--json"]
    assert main(words) == 0
    source, result = json.loads(capsys.readouterr().out)["models"]  # the same figures, by the engine's own process
    assert source["metrics"]["miou"] == pytest.approx(found["source"], abs=1e-6)
    assert result["metrics"]["miou"] == pytest.approx(found["artifact"], abs=1e-6)


@pytest.fixture
def lamps(tmp_path) -> Path:
    """Pictures of a light, labeled."""
    pytest.importorskip("faster_coco_eval")
    for number in range(3):
        (tmp_path / "lamps").mkdir(exist_ok=True)
        light(tmp_path / "lamps").rename(tmp_path / "lamps" / f"{number}.png")
        (tmp_path / "lamps" / f"{number}.txt").write_text("0 0.3125 0.375 0.125 0.25\n")
    return tmp_path / "lamps"


def converted(capsys, lamps: Path, status: int = 0) -> str:
    words = ["--to", "onnx", "--evaluate", str(lamps), "--out", str(lamps.parent / "out"), "--json"]
    assert main(["convert", str(lights(lamps.parent)), *words]) == status
    printed = capsys.readouterr()
    return printed.out if status == 0 else printed.err


def test_a_detector_is_judged_by_its_map(capsys, lamps):
    found = json.loads(converted(capsys, lamps))["accuracy"]
    assert (found["metric"], found["samples"], found["drop"]) == ("map", 3, 0)
    assert found["source"] > 0.9


def test_data_of_which_the_source_finds_nothing_stops_the_conversion(capsys, lamps):
    for place in lamps.glob("*.txt"):
        place.write_text("0 0.9 0.9 0.01 0.01\n")
    assert "the source itself finds nothing" in converted(capsys, lamps, InputError.exit_code)
    assert not (lamps.parent / "out").exists()


def test_unreadable_pictures_stop_the_conversion(capsys, lamps):
    (lamps / "2.png").write_bytes(b"no picture")
    assert "an evaluation input could not be read" in converted(capsys, lamps, InputError.exit_code)


def test_a_limit_that_no_layers_in_float_reach_fails_and_names_them(capsys, segmenter, colors):
    found = int8(capsys, segmenter, colors, "0.0001", status=ProofError.exit_code)
    assert "at most 0.0001 is allowed; the layers that lose most: positive" in found["message"]
    assert "out.failed" in found["hint"]
