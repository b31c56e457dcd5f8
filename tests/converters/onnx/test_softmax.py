"""Hardmax as a comparison gives the same answers over every axis, also where the largest value occurs twice."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx.softmax import hardmax_by_comparison

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax_is_a_comparison_with_the_place_of_the_largest_value(axis):
    ports = [helper.make_tensor_value_info(name, 1, (3, 4, 5)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"], axis=axis)], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    values = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype(np.float32)
    answers = []
    for _ in range(2):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"x": values})[0])
        hardmax_by_comparison(model)
    assert "Hardmax" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(answers[1], answers[0])
