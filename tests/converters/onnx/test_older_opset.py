"""Newer graphs for readers of older opsets: converted correctly, or refused with the node's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.onnx.older_opset import at_least_opset, at_most_opset
from converters.onnx.opset import opset_of
from converters.onnx.opset_downgrade import OpsetDowngradeError, lower_opset
from converters.onnx.softmax import softmax_over_last_axis
from converters.onnx_to_openvino import OnnxToOpenvino
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.errors import RefusedError, UsageError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT = onnx.TensorProto.FLOAT
X = np.random.default_rng(0).normal(0, 2, (1, 5, 4, 6)).astype(np.float32)


def model(*nodes, opset: int, constants=(), shape=(1, 5, 4, 6)):
    inputs = [helper.make_tensor_value_info("x", FLOAT, list(X.shape))]
    outputs = [helper.make_tensor_value_info("y", FLOAT, list(shape))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(proto):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3, None])
def test_a_softmax_over_any_axis_means_the_same_in_opset_12(op, axis):
    attributes = {} if axis is None else {"axis": axis}
    proto = model(helper.make_node(op, ["x"], ["y"], **attributes), opset=13)
    expected = run(proto)
    assert softmax_over_last_axis(proto)
    older = at_most_opset(proto, 12, "a reader")
    assert opset_of(older) == 12
    np.testing.assert_allclose(run(older), expected, atol=1e-6)


def test_a_softmax_that_would_flatten_is_not_lowered_as_it_is():
    with pytest.raises(OpsetDowngradeError, match="Softmax 'y' flattens"):
        lower_opset(model(helper.make_node("Softmax", ["x"], ["y"], axis=1), opset=13), 12)


def test_operators_that_came_later_are_written_in_older_ones():
    scale = np.random.default_rng(1).normal(size=6).astype(np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["n"]),
        helper.make_node("Gelu", ["n"], ["g"]),
        helper.make_node("HardSwish", ["g"], ["h"]),
        helper.make_node("Unsqueeze", ["h", "axes"], ["u"]),
        helper.make_node("Squeeze", ["u", "axes"], ["y"]),
    ]
    proto = model(*nodes, opset=20, constants=[("scale", scale), ("axes", np.array([0]))])
    older = at_most_opset(proto, 12, "a reader")
    assert opset_of(older) == 12
    np.testing.assert_allclose(run(older), run(proto), atol=1e-5)


@pytest.mark.parametrize("inputs", [("x", "", "scales"), ("x", "", "", "sizes")])
def test_a_resize_without_region_and_scales_has_empty_ones_in_opset_12(inputs):
    """As PyTorch exports it; in opset 12 both are required."""
    constants = [("scales", np.float32([1, 1, 2, 2])), ("sizes", np.int64([1, 5, 8, 12]))]
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    node = helper.make_node("Resize", list(inputs), ["y"], **attributes)
    proto = model(node, opset=17, constants=[one for one in constants if one[0] in inputs], shape=(1, 5, 8, 12))
    older = at_most_opset(proto, 12, "a reader")
    assert opset_of(older) == 12
    np.testing.assert_allclose(run(older), run(proto), atol=1e-6)


def test_what_the_older_opset_cannot_say_is_refused_by_node():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("GridSample", ["r", "grid"], ["y"], name="sample"),
    ]
    grid = np.zeros((1, 4, 6, 2), np.float32)
    with pytest.raises(RefusedError, match="opset 16, and 13 is the newest that a reader reads: GridSample 'sample'"):
        at_most_opset(model(*nodes, opset=16, constants=[("grid", grid)]), 13, "a reader")


def test_an_older_graph_is_upgraded_or_refused_with_the_reason():
    proto = model(helper.make_node("Softmax", ["x"], ["y"], axis=1), opset=11)
    lifted = at_least_opset(proto, 13)
    assert opset_of(lifted) == 13
    np.testing.assert_allclose(run(lifted), run(proto), atol=1e-6)
    with pytest.raises(UsageError, match="cannot be upgraded to 13"):
        at_least_opset(model(helper.make_node("Celu", ["x"], ["y"]), opset=11), 13)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_softmax_reaches_the_stick_right(tmp_path, axis):
    pytest.importorskip("openvino")
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Softmax", ["r"], ["s"], axis=axis),
        helper.make_node("Transpose", ["s"], ["y"], perm=[0, 2, 3, 1]),
    ]
    path = Path(tmp_path / "m.onnx")
    onnx.save(model(*nodes, opset=13, shape=(1, 4, 6, 5)), path)
    assert OnnxToOpenvino().id == "onnx_to_openvino"
    out = tmp_path / "out"
    out.mkdir()
    answer = convert(
        ConvertRequest(
            source=path,
            steps=("onnx_to_openvino",),
            format="openvino",
            options=ConvertOptions(precision="fp16", release="2021.4"),
            out=out,
            scratch=tmp_path / "scratch",
        ),
        lambda _progress: None,
    )
    assert answer.proof["metrics"]["snr_db"] > 50
