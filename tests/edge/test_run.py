"""`edge run` with a tiny classifier in ONNX and with the real models."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from edge.classify import Engine
from edge.cli import main
from edge.workers import Worker

ROOT = Path(__file__).parents[2]
RAW = ["--mean", "0", "--scale", "1"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Answers the mean red, green and blue of a picture: class 0 is the reddest, 2 the bluest."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["m"]),
            helper.make_node("Flatten", ["m"], ["f"]),
            helper.make_node("Softmax", ["f"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    return tmp_path / "m.onnx"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, name in enumerate(("a-red", "b-green", "c-blue")):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[..., index] = 200
        pillow.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_a_folder_of_pictures(capsys, model, pictures):
    names = ["--labels", str(model.parent / "names.txt")]
    assert main(["run", str(model), str(pictures), *RAW, *names, "--top", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split() for line in lines[1::2]] == [
        ["1.0000", name, f"({i})"] for i, name in enumerate(["red", "green", "blue"])
    ]
    assert all("ms  onnxruntime" in line for line in lines[::2])
    assert ["(first inference: " in line for line in lines[::2]] == [True, False, False]
    assert all(line.startswith("assumed: ") for line in printed.err.splitlines())
    assert "probabilities: Softmax makes it" in printed.err


def test_json_for_machines(capsys, model, pictures):
    assert main(["run", str(model), str(pictures / "b-green.png"), *RAW, "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    times = {"latency_ms", "first_ms"}
    assert {"picture", "top", "raw", *times, "runtime", "runtime_version", "assumptions"} == set(row)
    assert row["picture"].endswith("b-green.png")
    assert [entry["index"] for entry in row["top"]] == [1, 0, 2]
    assert row["top"][0] == {"index": 1, "label": None, "probability": 1.0}
    assert row["raw"] == 1.0
    assert row["latency_ms"] > 0
    assert [f"assumed: {line}" for line in row["assumptions"]] == printed.err.splitlines()


def test_colours_may_be_exchanged(capsys, model, pictures):
    assert main(["run", str(model), str(pictures / "a-red.png"), *RAW, "--color", "BGR", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"][0]["index"] == 2


def test_a_broken_picture_does_not_stop_the_others(capsys, model, pictures):
    (pictures / "b-broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    assert main(["run", str(model), str(pictures), *RAW, "--json"]) == 3
    printed = capsys.readouterr()
    assert [row["top"][0]["index"] for row in json.loads(printed.out)] == [0, 1, 2]
    assert any("b-broken.jpg cannot be read" in line for line in printed.err.splitlines())
    assert json.loads(printed.err.splitlines()[-1])["message"] == "1 of 4 pictures could not be read"


def test_the_only_picture_being_broken_is_the_error(capsys, model, tmp_path):
    assert main(["run", str(model), str(tmp_path / "missing.jpg"), *RAW]) == 3
    assert "missing.jpg does not exist" in capsys.readouterr().err


def test_labels_cannot_steer_the_terminal(capsys, model, pictures, tmp_path):
    (tmp_path / "evil.txt").write_text("\x1b[31mred\ngreen\nblue\n")
    assert main(["run", str(model), str(pictures), *RAW, "--labels", str(tmp_path / "evil.txt")]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 2, "does not say how pixels become its float32 input"),
        ([*RAW, "--runtime", "onnxruntim"], 2, "did you mean 'onnxruntime'?"),
        ([*RAW, "--runtime", "litert"], 2, "does not open the format 'onnx'"),
        ([*RAW, "--top", "0"], 2, "--top: '0' is not a whole number over 0"),
        ([*RAW, "--timeout", "nan"], 2, "--timeout: 'nan' is not a number of seconds over 0"),
        ([*RAW, "--threads", "0"], 2, "--threads: '0' is not"),
        ([*RAW, "--labels", "missing.txt"], 3, "missing.txt cannot be read"),
        ([*RAW, "--layout", "NHWC"], 3, "do not fit"),
    ],
)
def test_wrong_arguments_are_one_line_and_a_hint(capsys, model, pictures, options, status, words):
    assert main(["run", str(model), str(pictures), *options]) == status
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("assumed: ")]
    assert len(error) == 2
    assert words in " ".join(error)


def test_a_folder_without_pictures_is_an_input_error(capsys, model, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main(["run", str(model), str(tmp_path / "empty"), *RAW]) == 3
    assert "holds no pictures" in capsys.readouterr().err


def test_an_artifact_needs_no_options_and_assumes_nothing(capsys, model, pictures, tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(model.read_bytes())
    (folder / "labels.txt").write_text("background\nred\ngreen\n")
    specs = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 3, 8, 8]}]}
    specs |= {"outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 3]}]}
    preprocess = {"resize": "stretch", "size": 8, "crop": [8, 8], "method": "nearest", "layout": "NCHW"}
    preprocess |= {"color": "RGB", "mean": [0, 0, 0], "scale": [1, 1, 1]}
    manifest = {"schema": 1, "name": "m", "format": "onnx", "precision": "fp32", "model": "m.onnx", **specs}
    manifest |= {"preprocess": preprocess, "files": {"m.onnx": "0", "labels.txt": "0"}}
    manifest |= {"output": {"kind": "logit", "label_offset": 1, "labels": "labels.txt"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["run", str(folder), str(pictures / "a-red.png"), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    (row,) = json.loads(printed.out)
    assert row["top"][0]["label"] == "background"
    assert row["top"][0]["index"] == -1
    assert row["top"][0]["probability"] == pytest.approx(np.e / (np.e + 2), abs=1e-4)  # its "logits" are 1, 0, 0


def test_what_an_engine_is_at_while_it_opens_is_told(tmp_path, monkeypatch):
    (tmp_path / "building.py").write_text(
        "from runtimes.worker import serve\n"
        "def run(job, report):\n"
        "    report({'phase': 'building for 10 s'})\n"
        "    report({'done': 1, 'total': 1})\n"
        "    return {}\n"
        "serve({'run': run})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told: list[str] = []
    with Worker("building") as worker:
        Engine(note=told.append).run({"job": "run"}, worker)
    assert told == ["building for 10 s"]


# ---- real models


@pytest.fixture
def data() -> Path:
    folder = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir() and "EDGE_DATA" not in os.environ:
        pytest.skip("no real data: set EDGE_DATA")
    return folder


@pytest.mark.data
def test_the_published_score_of_the_quantised_model(capsys, data):
    pytest.importorskip("ai_edge_litert")
    picture = data / "imagenet" / "benchmark" / "n01582220_magpie.jpg"
    assert main(["run", str(data / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite"), str(picture), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["top"][0]["index"], row["top"][0]["label"]) == (18, "magpie")
    assert f"{row['raw']:.4f}" == "0.9961"
    assert row["top"][0]["probability"] == row["raw"]


@pytest.mark.data
@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_quant.tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite"])
def test_bare_real_models_know_most_of_the_evaluation_pictures(capsys, data, name):
    pytest.importorskip("ai_edge_litert")
    with (data / "imagenet" / "labels.csv").open() as stream:
        truth = {Path(row["file"]).name: int(row["class_index_of_1000"]) for row in csv.DictReader(stream)}
    folder = data / "imagenet" / "evaluation"
    assert main(["run", str(data / "mobilenet_v2" / name), str(folder), "--json", "--top", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 100
    right = sum(truth[Path(row["picture"]).name] == row["top"][0]["index"] for row in rows)
    assert right >= 65  # of 100; the model's published top-1 accuracy is 71 to 72 %
