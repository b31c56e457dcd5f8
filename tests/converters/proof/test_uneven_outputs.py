"""Outputs whose size depends on the input's values are compared as sets of rows, here and on a device."""

from __future__ import annotations

import numpy as np
import pytest

import converters.pipeline.candidate as pipeline
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from converters.proof.onnx_origins import deciding_node
from runtimes.artifact import Artifact
from runtimes.errors import InputError, ProofError
from runtimes.registry import new_session, open_session
from runtimes.session import Closeable
from runtimes.verification.selfcheck import check

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper, FLOAT, INT64 = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
NODE, TENSOR = helper.make_node, helper.make_tensor_value_info


def save(path, nodes, inputs, outputs, constants=None):
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


@pytest.fixture
def where_positive(tmp_path):
    nodes = [
        NODE("Relu", ["x"], ["r"]),
        NODE("NonZero", ["r"], ["n"], name="places"),
        NODE("Transpose", ["n"], ["y"]),
    ]
    inputs = [TENSOR("x", FLOAT, [1, 2, 6, 6])]
    return save(tmp_path / "m.onnx", nodes, inputs, [TENSOR("y", INT64, ["k", 4])])


@pytest.fixture
def detector(tmp_path):
    """Boxes and scores of what NonMaxSuppression selects."""
    nodes = [
        NODE("Slice", ["x", "zero", "four", "two"], ["centers"]),
        NODE("Mul", ["centers", "size"], ["boxes"]),
        NODE("Slice", ["x", "four", "five", "two"], ["s"]),
        NODE("Sigmoid", ["s"], ["s1"]),
        NODE("Transpose", ["s1"], ["scores"], perm=[0, 2, 1]),
        NODE("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["n"], name="nms"),
        NODE("Slice", ["n", "two", "three", "one"], ["place"]),
        NODE("Squeeze", ["place", "one"], ["index"]),
        NODE("Squeeze", ["boxes", "zero"], ["all_boxes"]),
        NODE("Gather", ["all_boxes", "index"], ["found"], axis=0),
        NODE("Squeeze", ["scores", "both"], ["all_scores"]),
        NODE("Gather", ["all_scores", "index"], ["confidence"], axis=0),
    ]
    constants = {
        **{name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}.items()},
        **{"five": np.array([5]), "both": np.array([0, 1]), "size": np.float32(100)},
        **{"most": np.array([20]), "iou": np.array([0.4], np.float32), "least": np.array([0.5], np.float32)},
    }
    outputs = [TENSOR("found", FLOAT, ["k", 4]), TENSOR("confidence", FLOAT, ["k"])]
    return save(tmp_path / "d.onnx", nodes, [TENSOR("x", FLOAT, [1, 24, 5])], outputs, constants)


def converted(model, tmp_path, shape, step="onnx_to_onnx", precision="fp16"):
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32))
    (tmp_path / "out").mkdir(exist_ok=True)
    request = ConvertRequest(
        source=model,
        steps=(step,),
        format=step.rsplit("_", 1)[1],
        options=ConvertOptions(precision=precision),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        samples=tmp_path / "samples.npz",
    )
    return convert(request, lambda progress: None)


@pytest.mark.parametrize(("step", "precision"), [("onnx_to_onnx", "fp16"), ("onnx_to_openvino", "fp32")])
def test_places_are_a_set_of_rows(where_positive, tmp_path, step, precision):
    if step == "onnx_to_openvino":
        pytest.importorskip("openvino")
    result = converted(where_positive, tmp_path, (2, 6, 6), step, precision)
    assert result.proof["metrics"]["rows_matched"] == 1
    artifact = Artifact.open(tmp_path / "out")
    assert [one.kind for one in artifact.manifest.selfcheck.outputs] == ["rows"]
    with open_session(artifact) as session:
        assert check(artifact, session).passed


class Spoiled(Closeable):
    """A session that changes the answers of another one."""

    def __init__(self, session, change):
        self._session, self._change = session, change
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds):
        return {name: self._change(name, values) for name, values in self._session.run(feeds).items()}

    def close(self):
        self._session.close()


CHANGES = {
    "a dropped row": lambda name, values: values[1:],
    "a wrong row": lambda name, values: np.concatenate([values[:-1], values[-1:] * 0.3]),
    "a wrong order in one output": lambda name, values: values[::-1] if name == "confidence" else values,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_detector_loses_is_found_here_and_on_a_device(detector, tmp_path, monkeypatch, change):
    converted(detector, tmp_path, (24, 5))
    artifact = Artifact.open(tmp_path / "out")
    with open_session(artifact) as session:
        assert check(artifact, session).passed
        verdict = check(artifact, Spoiled(session, change))
        assert not verdict.passed
        assert "outputs 'found', 'confidence'" in verdict.message
    monkeypatch.setattr(pipeline, "new_session", lambda artifact: Spoiled(new_session(artifact), change))
    with pytest.raises(ProofError, match=r"outputs 'found', 'confidence': .* rows"):
        converted(detector, tmp_path, (24, 5))


def test_another_order_of_all_rows_passes(detector, tmp_path):
    converted(detector, tmp_path, (24, 5))
    artifact = Artifact.open(tmp_path / "out")
    with open_session(artifact) as session:
        assert check(artifact, Spoiled(session, lambda name, values: values[::-1])).passed


def test_a_size_that_varies_on_two_axes_is_refused_and_the_node_named(tmp_path):
    nodes = [
        NODE("Relu", ["x"], ["r"]),
        NODE("NonZero", ["r"], ["n"], name="places"),
        NODE("Cast", ["n"], ["f"], to=FLOAT),
        NODE("Transpose", ["f"], ["t"]),
        NODE("MatMul", ["t", "f"], ["y"]),
    ]
    model = save(tmp_path / "m.onnx", nodes, [TENSOR("x", FLOAT, [1, 6])], [TENSOR("y", FLOAT, ["k", "k"])])
    words = r"output 'y' has another size .* node 'places' \(NonZero\) decides it"
    with pytest.raises(InputError, match=words) as caught:
        converted(model, tmp_path, (6,))
    assert "TopK" in caught.value.hint
    assert caught.value.details["operator"] == "NonZero"


def test_a_model_of_fixed_sizes_has_no_such_node(where_positive):
    assert deciding_node(where_positive, "r") is None
    assert deciding_node(where_positive, "elsewhere") is None
