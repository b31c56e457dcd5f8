"""`edge run` with a tiny classifier in ONNX and with the real models."""

from __future__ import annotations

import csv
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.inference.prepared_model import EngineChoice
from edge.workers.process import Worker
from runtimes.jobs import RunJob

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
        "colors",
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
    spent = r"\.png  preprocessing \d+\.\d ms, inference \d+\.\d ms, decoding \d+\.\d ms  onnxruntime "
    assert all(re.search(spent, line) for line in lines[::2])
    assert ["(first inference: " in line for line in lines[::2]] == [True, False, False]
    assert all(line.startswith("assumed: ") for line in printed.err.splitlines())
    assert "probabilities: computed by Softmax" in printed.err


@pytest.mark.parametrize("shape", [[1, 8, 8, 1], ["n", 1, 8, 8]])
def test_a_model_of_one_channel_takes_the_gray_of_a_picture(capsys, tmp_path, pictures, shape):
    """It answers with the mean gray, and with the rest."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "axis"], ["gray"]),
        helper.make_node("Sub", ["one", "gray"], ["rest"]),
        helper.make_node("Concat", ["gray", "rest"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "gray",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 2])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    place = tmp_path / "gray.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), place)
    words = ["--mean", "0", "--scale", str(1 / 255), "--output", "probability", "--json"]
    assert main(["run", str(place), str(pictures / "b-green.png"), *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["top"][0]["index"] == 1
    assert row["top"][1]["probability"] == pytest.approx(117 / 255, abs=1e-5)  # the luma of a green of 200
    assert "its single channel is the gray of the picture" in row["assumptions"]


def test_json_for_machines(capsys, model, pictures):
    assert main(["run", str(model), str(pictures / "b-green.png"), *RAW, "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    times = {"latency_ms", "first_ms", "preprocess_ms", "decode_ms"}
    as_ever = {"picture", "top", "raw", *times, "runtime", "runtime_version", "assumptions"}
    assert {*as_ever, "input", "task", "result"} == set(row)
    assert (row["input"], row["task"], row["result"]) == (row["picture"], "classification", row["top"])
    assert row["picture"].endswith("b-green.png")
    assert [entry["index"] for entry in row["top"]] == [1, 0, 2]
    assert row["top"][0] == {"index": 1, "label": None, "probability": 1.0}
    assert row["raw"] == 1.0
    assert row["latency_ms"] > 0
    assert [f"assumed: {line}" for line in row["assumptions"]] == printed.err.splitlines()


def test_colors_may_be_exchanged(capsys, model, pictures):
    assert main(["run", str(model), str(pictures / "a-red.png"), *RAW, "--color", "BGR", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"][0]["index"] == 2


def test_a_batch_of_a_fixed_size_takes_one_picture(capsys, model, pictures):
    """It is filled with copies, and classified as ever."""
    import onnx

    fixed = onnx.load(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(fixed, model)
    assert main(["run", str(model), str(pictures), *RAW, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["task"], row["top"][0]["index"]) for row in rows] == [("classification", place) for place in range(3)]


def test_a_broken_picture_does_not_stop_the_others(capsys, model, pictures):
    (pictures / "b-broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    assert main(["run", str(model), str(pictures), *RAW, "--json"]) == 3
    printed = capsys.readouterr()
    assert [row["top"][0]["index"] for row in json.loads(printed.out)] == [0, 1, 2]
    assert any("b-broken.jpg cannot be read" in line for line in printed.err.splitlines())
    assert json.loads(printed.err.splitlines()[-1])["message"] == "1 of 4 pictures could not be read"


def test_a_folder_of_arrays_is_taken_where_there_are_no_pictures(capsys, model, tmp_path):
    for place, row in enumerate(np.eye(3, dtype=np.float32)):
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.save(tmp_path / "arrays" / f"{place}.npy", np.broadcast_to(row[:, None, None], (1, 3, 8, 8)))
    assert main(["run", str(model), str(tmp_path / "arrays"), "--json"]) == 0
    assert [Path(row["input"]).name for row in json.loads(capsys.readouterr().out)] == ["0.npy", "1.npy", "2.npy"]


def test_what_was_answered_before_ctrl_c_is_printed(capsys, monkeypatch, model, pictures):
    """Ctrl+C comes while the second answer is drawn."""

    def saved(picture, place):
        if place.stem != "a-red":
            raise KeyboardInterrupt

    monkeypatch.setattr("edge.cli.run._save", saved)
    assert main(["run", str(model), str(pictures), *RAW, "--json", "--draw", "drawn"]) == 130
    printed = capsys.readouterr()
    assert [Path(row["input"]).name for row in json.loads(printed.out)] == ["a-red.png"]
    assert printed.err.splitlines()[-1] == "edge: stopped"


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
        ([], 2, "does not specify how pixels are scaled to its float32 input"),
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
    assert "contains no pictures" in capsys.readouterr().err


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


def onnx_model(path: Path, nodes: list[tuple[str, list[str], list[str]]], inputs: dict, outputs: dict) -> Path:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    infos = [
        [helper.make_tensor_value_info(name, kinds[dtype], shape) for name, (dtype, shape) in specs.items()]
        for specs in (inputs, outputs)
    ]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "g", *infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """Answers a map, which nothing says the meaning of, and the mean of the picture."""
    picture, answers = (
        {"x": ("float32", [1, 3, 8, 8])},
        {"map": ("float32", [1, 3, 8, 8]), "m": ("float32", [1, 3, 1, 1])},
    )
    nodes = [("Neg", ["x"], ["map"]), ("GlobalAveragePool", ["x"], ["m"])]
    return onnx_model(tmp_path / "s.onnx", nodes, picture, answers)


def test_a_model_whose_task_is_not_known_gives_its_outputs(capsys, segmenter, pictures):
    assert main(["run", str(segmenter), str(pictures / "a-red.png"), *RAW, "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert row["task"] == "tensors"
    assert row["result"]["map"] == {
        "shape": [1, 3, 8, 8],
        "dtype": "float32",
        "min": -200.0,
        "max": 0.0,
        "mean": pytest.approx(-200 / 3),
    }
    assert set(row["result"]) == {"map", "m"}
    assert not {"top", "raw"} & set(row)
    assert "stretched to 8 × 8" in printed.err
    assert main(["run", str(segmenter), str(pictures / "a-red.png"), *RAW]) == 0
    assert "  map  float32[1, 3, 8, 8]  min -200, max -0, mean -66.6667" in capsys.readouterr().out.splitlines()


def test_a_list_of_numbers_that_nothing_shows_to_be_classes_is_tensors(capsys, tmp_path, pictures):
    nodes = [("GlobalAveragePool", ["x"], ["m"]), ("Flatten", ["m"], ["y"])]
    shapes = {"x": ("float32", [1, 3, 8, 8])}, {"y": ("float32", [1, 3])}
    path = onnx_model(tmp_path / "e.onnx", nodes, *shapes)
    words = ["run", str(path), str(pictures / "a-red.png"), *RAW, "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)[0]["task"] == "tensors"
    assert main([*words, "--output", "logit"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["task"] == "classification"


def test_arrays_go_in_as_they_are(capsys, model, tmp_path):
    pixels = np.zeros((3, 1, 3, 8, 8))
    for index in range(3):
        pixels[index, :, index] = 200
    np.save(tmp_path / "one.npy", pixels[2].astype(np.float32))
    np.savez(tmp_path / "three.npz", x=pixels)  # float64: what numpy makes where nobody says otherwise
    assert main(["run", str(model), str(tmp_path / "one.npy"), str(tmp_path / "three.npz"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["result"][0]["index"] for row in rows] == [2, 0, 1, 2]
    assert [Path(row["input"]).name for row in rows] == ["one.npy", "three.npz[0]", "three.npz[1]", "three.npz[2]"]
    assert all("picture" not in row for row in rows)


def test_a_model_of_several_inputs_takes_an_npz(capsys, tmp_path):
    shapes = {"a": ("float32", ["n"]), "b": ("float32", ["n"])}, {"y": ("float32", ["n"])}
    path = onnx_model(tmp_path / "add.onnx", [("Add", ["a", "b"], ["y"])], *shapes)
    for size in (2, 5):
        np.savez(tmp_path / f"{size}.npz", a=np.ones(size, np.float32), b=np.arange(size, dtype=np.int32))
    assert main(["run", str(path), str(tmp_path / "2.npz"), str(tmp_path / "5.npz"), "--json"]) == 0
    results = [row["result"]["y"] for row in json.loads(capsys.readouterr().out)]
    assert [(one["shape"], one["max"]) for one in results] == [([2], 2.0), ([5], 5.0)]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((1, 3, 9, 8), np.float32)}, "input 'x' is float32[1, 3, 9, 8]; the model takes float32"),
        ({"x": np.zeros((2, 1, 3, 8, 9), np.float32)}, "stacked on a new first axis"),
        ({"x": np.zeros((), np.float32)}, "input 'x' is float32[]"),
        ({"x": np.zeros(1), "z": np.zeros(1)}, "contains x, z; the model takes x"),
        ({}, "contains no array"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line_and_a_hint(capsys, model, tmp_path, arrays, words):
    np.savez(tmp_path / "in.npz", **arrays)
    assert main(["run", str(model), str(tmp_path / "in.npz")]) == 3
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("assumed: ")]
    assert len(error) == 2
    assert words in " ".join(error)


PROMISING = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }"  # 40 TB, of which none follow


@pytest.mark.parametrize(
    "content",
    [b"", b"no array", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(PROMISING)) + PROMISING],
)
def test_files_that_are_no_arrays_are_named_and_the_others_run(capsys, model, tmp_path, content):
    (tmp_path / "broken.npy").write_bytes(content)
    np.save(tmp_path / "good.npy", np.zeros((1, 3, 8, 8), np.float32))
    assert main(["run", str(model), str(tmp_path / "broken.npy"), str(tmp_path / "good.npy"), "--json"]) == 3
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 1
    assert "broken.npy is not a readable .npy" in printed.err
    assert "1 of 2 inputs could not be read" in printed.err


def test_what_an_engine_is_at_while_it_opens_is_reported(tmp_path, monkeypatch):
    (tmp_path / "building.py").write_text(
        "from runtimes.worker import serve\n"
        "def run(job, report):\n"
        "    report({'phase': 'building for 10 s'})\n"
        "    report({'done': 1, 'total': 1})\n"
        "    return {'runtime': 'null', 'runtime_version': '1', 'first_ms': 1.0, 'latency_ms': []}\n"
        "serve({'run': run})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told: list[str] = []
    with Worker("building") as worker:
        EngineChoice(note=told.append).run(RunJob("m", "in.npz", "out.npz"), worker)
    assert told == ["building for 10 s"]


# ---- real models


@pytest.mark.data
def test_the_published_score_of_the_quantized_model(capsys, data):
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
