"""Whole numbers that a model only calculates with are made up in both signs; indices and lengths are not."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.input_roles import InputRole, input_roles
from converters.calibration.synthetic import make_inputs, plain
from runtimes.artifact import TensorSpec

onnx = pytest.importorskip("onnx")
INT32 = onnx.TensorProto.INT32
X, Y = TensorSpec("x", "int32", (4,)), TensorSpec("y", "int32", (4,))


def roles(tmp_path, *nodes, inputs=(X, Y), opset=28):
    made = [onnx.helper.make_node(op, list(ins), list(outs), **more) for op, ins, outs, more in nodes]
    ports = [onnx.helper.make_tensor_value_info(one.name, INT32, one.shape) for one in inputs]
    answer = onnx.helper.make_tensor_value_info("z", INT32, None)
    graph = onnx.helper.make_graph(made, "g", ports, [answer])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    onnx.save(model, tmp_path / "m.onnx")
    return input_roles(tmp_path / "m.onnx", "onnx", inputs)


@pytest.mark.parametrize(
    ("nodes", "opset", "bounds"),
    [
        ([("Mul", "xy", "z", {})], 28, [(-100, 100), (-100, 100)]),
        ([("Div", "xy", "z", {})], 28, [(-100, 100), (1, 100)]),
        ([("Pow", "xy", "z", {})], 28, [(0, 3), (0, 3)]),
        ([("BitShift", "xy", "z", {"direction": "RIGHT"})], 28, [(-100, 100), (0, 33)]),
        ([("BitShift", "xy", "z", {"direction": "RIGHT"})], 18, [(-100, 100), (0, 31)]),
        ([("Add", "xy", "s", {}), ("Gather", ["x", "s"], "z", {})], 28, [None, None]),
        ([("Neg", "x", "n", {}), ("Tile", ["n", "y"], "z", {})], 28, [None, None]),
    ],
)
def test_what_is_calculated_with_and_what_is_not(tmp_path, nodes, opset, bounds):
    found = roles(tmp_path, *nodes, opset=opset)
    assert [found.get(name, InputRole()).bounds for name in "xy"] == bounds


def test_lengths_of_keys_reach_from_one_to_all_of_them(tmp_path):
    shapes = {"q": (1, 2, 3, 8), "k": (1, 2, 6, 8), "v": (1, 2, 6, 8), "n": (1,)}
    inputs = [TensorSpec(name, "int32", shape) for name, shape in shapes.items()]
    found = roles(tmp_path, ("Attention", ["q", "k", "v", "", "", "", "n"], ["z"], {}), inputs=inputs)
    assert found == {"n": InputRole(bounds=(1, 6))}


def test_made_up_numbers_are_inside_the_bounds_and_zeros_and_ones_when_nothing_else_suits():
    role = {"x": InputRole(bounds=(-100, 100))}
    usual = make_inputs([X], None, roles=role).samples["x"]
    assert usual.min() < 0 < usual.max()
    assert np.abs(usual).max() <= 100
    assert set(np.unique(make_inputs([X], None, roles=role, change=plain).samples["x"])) == {0, 1}


def test_one_made_up_boolean_mask_hides_everything_and_none_does_when_that_does_not_suit():
    mask, role = TensorSpec("mask", "bool", (1, 6)), {"mask": InputRole(is_mask=True)}
    lengths = make_inputs([mask], None, roles=role).samples["mask"].sum(axis=(1, 2))
    assert (lengths[0], lengths[-1]) == (6, 0)
    assert make_inputs([mask], None, roles=role, change=plain).samples["mask"].sum(axis=(1, 2)).min() > 0
