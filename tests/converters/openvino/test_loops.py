"""Loops as tf2onnx writes them for the recurrent layers of Keras reach OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx_to_openvino import OnnxToOpenvino
from converters.options import ConvertOptions

WEIGHTS = np.random.default_rng(4).normal(0, 0.5, (3, 3)).astype(np.float32)
STEPS = 5


@pytest.fixture
def looping(tmp_path):
    """Five times `state = tanh(state @ weights)`; the weights are a state that the body passes on unchanged."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weights"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [
            value("step", kinds.INT64, []),
            value("go", kinds.BOOL, []),
            value("state", kinds.FLOAT, [1, 3]),
            value("weights", kinds.FLOAT, [3, 3]),
        ],
        [value("still", kinds.BOOL, []), value("next", kinds.FLOAT, [1, 3]), value("weights", kinds.FLOAT, [3, 3])],
    )
    constants = {"steps": np.int64(STEPS), "always": np.array(True), "w": WEIGHTS}
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "always", "x", "w"], ["y", "last"], body=body)],
        "g",
        [value("x", kinds.FLOAT, [1, 3])],
        [value("y", kinds.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    path = tmp_path / "loop.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_state_that_a_loop_passes_on_unchanged(looping, tmp_path, precision):
    openvino = pytest.importorskip("openvino")
    (tmp_path / "out").mkdir()
    options = ConvertOptions(precision=precision, scratch=str(tmp_path))
    made = OnnxToOpenvino().convert(looping, tmp_path / "out", options, None).model
    x = expected = np.float32([[0.5, -1, 2]])
    for _ in range(STEPS):
        expected = np.tanh(expected @ WEIGHTS)
    given = openvino.Core().compile_model(str(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])["y"]
    np.testing.assert_allclose(given, expected, atol=1e-5 if precision == "fp32" else 1e-2)


def test_openvino_fails_on_such_a_loop_itself(looping):
    openvino = pytest.importorskip("openvino")
    with pytest.raises(Exception, match="does not match the sum of loop carried dependencies"):
        openvino.convert_model(looping)
