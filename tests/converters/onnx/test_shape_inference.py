"""Sizes that a file does not declare, compared with ONNX's own inference."""

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from converters.onnx.graph import read_onnx
from converters.onnx.shape_inference import infer_sizes


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize(
    ("op", "axes", "options"),
    [
        ("Squeeze", [2, 3], {}),
        ("Squeeze", [-1], {}),
        ("Squeeze", None, {}),
        ("Unsqueeze", [0, 3], {}),
        ("Unsqueeze", [-1], {}),
        ("ReduceMean", [2, 3], {}),
        ("ReduceMean", [-1, -2], {"keepdims": 0}),
        ("ReduceMax", None, {"keepdims": 0}),
        ("ReduceSum", [1], {"keepdims": 1}),
    ],
)
def test_added_removed_and_reduced_dimensions_are_those_of_onnx(op, axes, options, opset, tmp_path):
    as_input = opset == 18 and axes is not None
    constants = [numpy_helper.from_array(np.array(axes, np.int64), "axes")] if as_input else []
    if axes is not None and not as_input:
        options = {**options, "axes": axes}
    node = helper.make_node(op, ["x", *(["axes"] if as_input else [])], ["y"], **options)
    start = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 1, 1])
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [start], [end], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    (expected,) = shape_inference.infer_shapes(model).graph.output
    found = read_onnx(path)
    found.shapes.pop("y", None)
    assert list(infer_sizes(found)["y"]) == [one.dim_value for one in expected.type.tensor_type.shape.dim]
