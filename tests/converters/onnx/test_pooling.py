"""Padding split from a pool gives the same answers: no infinity in a maximum, every zero in an average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.onnx.pooling import pad_before_pooling

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")


def _model(before: str | None, opset: int = 17, size: int = 7, kind: str = "MaxPool", **pool: Any) -> Any:
    nodes = [helper.make_node(before, ["x"], ["r"])] if before else []
    nodes.append(helper.make_node(kind, ["r" if before else "x"], ["y"], **pool))
    x = helper.make_tensor_value_info("x", 1, (1, 2, size, size))
    y = helper.make_tensor_value_info("y", 1, (1, 2, None, None))
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _answer(model: Any, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": values})[0])


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize("before", [None, "Relu"])
@pytest.mark.parametrize(
    "pool",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "size": 8},
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1, "size": 6},
    ],
)
def test_the_answers_stay_and_no_pool_pads_any_more(pool: dict[str, Any], before: str | None, opset: int) -> None:
    model = _model(before, opset, **pool)
    values = np.random.default_rng(0).uniform(
        -5, -1, tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    )
    expected = _answer(model, values.astype(np.float32))
    assert pad_before_pooling(model)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(_answer(model, values.astype(np.float32)), expected)
    pad, last = model.graph.node[-2:]
    assert pad.op_type == "Pad"
    assert not {"pads", "ceil_mode"} & {attribute.name for attribute in last.attribute}


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 1, 0]])
def test_zeros_that_an_average_counts_are_padded_before_it(pads: list[int]) -> None:
    model = _model(None, kind="AveragePool", kernel_shape=[3, 3], pads=pads, count_include_pad=1)
    values = np.random.default_rng(0).uniform(1, 5, (1, 2, 7, 7)).astype(np.float32)
    expected = _answer(model, values)
    assert pad_before_pooling(model)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(_answer(model, values), expected, rtol=1e-6)
    pad, average = model.graph.node
    assert helper.get_attribute_value(pad.attribute[0]) == b"constant"
    assert {attribute.name for attribute in average.attribute} == {"kernel_shape"}


def test_zeros_pad_only_what_is_never_negative() -> None:
    modes = {}
    for before in (None, "Relu", "Neg"):
        model = _model(before, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        pad_before_pooling(model)
        pad = next(node for node in model.graph.node if node.op_type == "Pad")
        modes[before] = helper.get_attribute_value(pad.attribute[0]).decode()
    assert modes == {None: "edge", "Relu": "constant", "Neg": "edge"}


@pytest.mark.parametrize(
    "pool",
    [
        {},
        {"auto_pad": "SAME_UPPER"},
        {"dilations": [2, 2], "pads": [1, 1, 1, 1]},
        {"kind": "AveragePool", "pads": [1, 1, 1, 1]},
        {"kind": "AveragePool", "count_include_pad": 1},
        {"kind": "AveragePool", "count_include_pad": 1, "ceil_mode": 1, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ],
)
def test_other_pools_stay_as_they_are(pool: dict[str, Any]) -> None:
    model = _model(None, kernel_shape=[3, 3], **pool)
    before = model.SerializeToString()
    assert not pad_before_pooling(model)
    assert model.SerializeToString() == before
