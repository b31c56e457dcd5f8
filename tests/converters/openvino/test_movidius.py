"""OpenVINO for the Movidius stick: immediate refusals, and with its environment the IR, the layers and the answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.onnx_to_openvino import OnnxToOpenvino
from converters.openvino import movidius
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.arrays import load_arrays
from runtimes.errors import RefusedError, UsageError

OPTIONS = ConvertOptions(precision="fp16", opset=13, release=movidius.RELEASE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ConvertOptions(precision="fp32", release="2021.4"), "supports only fp16 and a fixed batch"),
        (ConvertOptions(precision="fp16", batch=None, release="2021.4"), "supports only fp16 and a fixed batch"),
        (ConvertOptions(precision="fp16", release="2020.3"), r"OpenVINO 2020\.3 is not available here"),
    ],
)
def test_what_the_stick_never_takes_is_refused_at_once(classifier, tmp_path, monkeypatch, options, message):
    pytest.importorskip("openvino")
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=message):
        OnnxToOpenvino().convert(classifier, tmp_path, options, None)
    assert not (tmp_path / "cache").exists()


class Answering:
    """In place of the environment: notes the jobs and gives one answer to each."""

    def __init__(self, *answers):
        self.answers, self.jobs, self.models = list(answers), [], []

    def run(self, job, _timeout_s, subject, hint):
        assert subject.startswith("OpenVINO 2021.4.2 on ")
        assert "opset 13" in hint
        self.jobs.append(job)
        if job["job"] == "convert":
            self.models.append(pytest.importorskip("onnx").load(job["model"]))
        if job["job"] == "run":
            given = load_arrays(Path(job["inputs"]))["image"]
            np.savez(job["outputs"], **{name: np.zeros((len(given), 1, 5), np.float32) for name in job["names"]})
        return self.answers.pop(0)


@pytest.fixture
def answering(monkeypatch):
    def instead(*answers):
        known = Answering(*answers)
        monkeypatch.setattr("converters.openvino.movidius.environment", lambda _name: known)
        return known

    return instead


def test_layers_that_the_plugin_does_not_take_are_named(classifier, tmp_path, answering):
    pytest.importorskip("openvino")
    layers = [["Einsum", "attention"], ["GRUSequence", "gru"], ["Loop", "a"], ["Loop", "b"]]
    answering({"layers": 40, "refused": layers})
    with pytest.raises(RefusedError, match="does not support 4 of the 40 layers") as caught:
        OnnxToOpenvino().convert(classifier, tmp_path, OPTIONS, None)
    assert "Einsum 'attention', GRUSequence 'gru', Loop 'a' and 1 more" in caught.value.message
    assert "edge check" in caught.value.hint


@pytest.mark.parametrize(("stick", "words"), [("NC_ERROR", "(MYRIAD plugin: 'NC_ERROR')"), (None, "loaded onto")])
def test_the_witness_says_what_became_of_the_stick(classifier, tmp_path, answering, stick, words):
    pytest.importorskip("openvino")
    known = answering({"layers": 5, "refused": []}, {"stick": stick})
    made = OnnxToOpenvino().convert(classifier, tmp_path, OPTIONS, None)
    assert [axis.dim_value for axis in known.models[0].graph.input[0].type.tensor_type.shape.dim] == [1, 4, 4, 3]
    result = made.cross_check({"image": np.zeros((2, 1, 4, 4, 3), np.float32)}, ["scores"])
    assert known.jobs[1]["names"] == ["scores"]
    assert result.answers["scores"].shape == (2, 1, 5)
    assert words in result.notes[0]
    assert "all 5 layers" in result.notes[0]


@pytest.mark.slow
def test_a_model_reaches_the_stick_proven(classifier, tmp_path):
    pytest.importorskip("openvino")
    digests = []
    for attempt in ("one", "two"):
        out = tmp_path / attempt
        out.mkdir()
        request = ConvertRequest(
            source=classifier,
            steps=("onnx_to_openvino",),
            format="openvino",
            options=OPTIONS,
            out=out,
            scratch=tmp_path / "scratch",
        )
        answer = convert(request, lambda _progress: None)
        digests.append(json.loads((out / "manifest.json").read_text())["files"])
    assert digests[0] == digests[1]
    assert 'version="10"' in (out / "classifier.xml").read_text()[:200]
    assert list(answer.files) == ["classifier.bin", "classifier.xml", "manifest.json", "selfcheck.npz"]
    assert answer.proof["witness"] == "OpenVINO 2021.4.2 (CPU)"
    assert "its MYRIAD plugin supports all" in answer.notes[-1]


@pytest.fixture
def difference(tmp_path):
    """y = (before - after) · factor, for a free batch and a scalar factor."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"before": ["n", 6], "after": ["n", 6], "factor": [], "y": ["n", 6]}
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Sub", ["before", "after"], ["rest"]),
        helper.make_node("Mul", ["rest", "factor"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:3], values[3:]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(model, tmp_path / "difference.onnx")
    return tmp_path / "difference.onnx"


def test_a_difference_of_two_tensors_is_written_as_a_sum(difference, tmp_path, answering):
    runtime = pytest.importorskip("onnxruntime")
    known = answering({"layers": 5, "refused": []})
    made = OnnxToOpenvino().convert(difference, tmp_path, replace(OPTIONS, scratch=str(tmp_path)), None)
    (model,) = known.models
    assert "Sub" not in {node.op_type for node in model.graph.node}
    feeds = {"before": np.float32([[1, 2, 3, -4, 5, 6]]), "after": np.float32([[0.1, 7, -3, 4, 65504, 0]])}
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {**feeds, "factor": np.array(3, np.float32)})
    np.testing.assert_array_equal(given, (feeds["before"] - feeds["after"]) * 3)
    rounded = runtime.InferenceSession(str(made.device_model.model), providers=["CPUExecutionProvider"])
    assert [one.name for one in rounded.get_outputs()] == ["y"]


@pytest.mark.slow
def test_two_inputs_of_a_free_batch_and_a_scalar_reach_the_stick(difference, tmp_path):
    pytest.importorskip("openvino")
    made = OnnxToOpenvino().convert(difference, tmp_path, OPTIONS, None)
    feeds = {"before": np.ones((1, 1, 6), np.float32), "after": np.full((1, 1, 6), 3, np.float32)}
    given = made.cross_check({**feeds, "factor": np.float32([2])}, ["y"]).answers["y"]
    np.testing.assert_array_equal(given, np.full((1, 1, 6), -4))


@pytest.mark.slow
@pytest.mark.parametrize("operators", [("Sub",), ("Neg", "Add"), ("Sub", "Neg"), ("Mul", "Add")])
def test_corners_that_are_anchors_less_distances_reach_the_stick(tmp_path, operators):
    """As the heads of YOLO compute them; the plugin reports that it does not support a Subtract from a constant."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    from onnx import TensorProto, helper, numpy_helper

    anchors = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    one, other = ("sides", "anchors") if operators == ("Sub", "Neg") else ("anchors", "sides")
    nodes = [helper.make_node("Relu", ["x"], ["sides"])]
    if operators[1:] == ("Add",):
        inputs = ["sides", "minus_one"][: 1 if operators[0] == "Neg" else 2]
        nodes.append(helper.make_node(operators[0], inputs, ["n"]))
        nodes.append(helper.make_node("Add", ["anchors", "n"], ["corner"]))
    else:
        last = "d" if len(operators) == 2 else "corner"
        nodes += [helper.make_node("Sub", [one, other], [last])]
        nodes += [helper.make_node("Neg", ["d"], ["corner"])] if len(operators) == 2 else []
    nodes.append(helper.make_node("Concat", ["corner", "sides"], ["y"], axis=1))
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4])]
    constants = [numpy_helper.from_array(anchors, "anchors"), numpy_helper.from_array(np.float32(-1), "minus_one")]
    graph = helper.make_graph(nodes, "g", values, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, tmp_path / "head.onnx")
    made = OnnxToOpenvino().convert(tmp_path / "head.onnx", tmp_path, OPTIONS, None)
    sides = np.float32([[[0, 1, 2, 3], [-1, 0.5, 8, 4]]])
    given = made.cross_check({"x": sides[None]}, ["y"]).answers["y"]
    sides = np.maximum(sides, 0)
    np.testing.assert_array_equal(given.reshape(1, 4, 4), np.concatenate([anchors - sides, sides], axis=1))


@pytest.mark.slow
def test_a_layer_that_the_stick_has_not_is_refused_by_its_own_plugin(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="cube")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in SHAPES.items()]
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, tmp_path / "cubes.onnx")
    with pytest.raises(RefusedError, match="the MYRIAD plugin does not support"):
        OnnxToOpenvino().convert(tmp_path / "cubes.onnx", tmp_path, OPTIONS, None)


SHAPES = {"x": [1, 3, 8, 8, 8], "y": [1, 4, 6, 6, 6]}


@pytest.mark.slow
def test_a_newer_opset_is_brought_down(make_classifier, tmp_path):
    pytest.importorskip("openvino")
    import onnx

    newer = make_classifier()
    model = onnx.load(newer)
    model.opset_import[0].version = 17
    onnx.save(model, newer)
    made = OnnxToOpenvino().convert(newer, tmp_path, OPTIONS, None)
    assert made.model.is_file()


def test_a_squeeze_gets_the_axes_that_it_leaves_out(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Squeeze", ["x"], ["inner"]),
        helper.make_node("Unsqueeze", ["inner", "axis"], ["same"]),
        helper.make_node("Relu", ["same"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", [1, 3, 1]), ("y", [1, 3]))]
    axis = onnx.numpy_helper.from_array(np.int64([0]), "axis")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    squeeze = movidius._readable(tmp_path / "m.onnx", {}).graph.node[0]
    assert (squeeze.op_type, list(squeeze.attribute[0].ints)) == ("Squeeze", [0, 2])
