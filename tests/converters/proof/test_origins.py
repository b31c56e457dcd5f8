"""Which operators an output's elements come from, and the range that these operators imply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.proof.onnx_origins import OnnxOrigins
from converters.proof.origins import Tracer, head_layers

onnx = pytest.importorskip("onnx")
helper, numpy_helper, FLOAT, INT64 = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
NODE = helper.make_node


def traced(folder: Path, nodes, shape, constants=None, kind=FLOAT, inputs=((1, 7, 8, 8),)) -> Tracer:
    values = [helper.make_tensor_value_info(f"x{i}" if i else "x", FLOAT, one) for i, one in enumerate(inputs)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("y", kind, shape)], weights)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return Tracer(OnnxOrigins(path))


def ranges(parts):
    return [(one.axis, one.start, one.stop, one.span if one.natural else None) for one in parts]


SPLIT = {"sizes": np.array([4, 3])}
HEADS = [
    NODE("Split", ["x", "sizes"], ["b", "s"], axis=1),
    NODE("Sigmoid", ["s"], ["p"]),
    NODE("Concat", ["b", "p"], ["c"], axis=1),
]


def test_scores_behind_a_concat(tmp_path):
    tracer = traced(tmp_path, [*HEADS, NODE("Identity", ["c"], ["y"])], [1, 7, 8, 8], SPLIT)
    assert ranges(tracer.parts("y", (1, 7, 8, 8))) == [(1, 0, 4, None), (1, 4, 7, 1.0)]


def test_scores_behind_reshape_and_transpose(tmp_path):
    nodes = [*HEADS, NODE("Reshape", ["c", "shape"], ["r"]), NODE("Transpose", ["r"], ["y"], perm=[0, 2, 1])]
    tracer = traced(tmp_path, nodes, [1, 64, 7], {**SPLIT, "shape": np.array([1, 7, 64])})
    assert ranges(tracer.parts("y", (1, 64, 7))) == [(2, 0, 4, None), (2, 4, 7, 1.0)]


def test_a_slice_of_scores(tmp_path):
    cut = {"from": np.array([2]), "to": np.array([6]), "axes": np.array([1])}
    tracer = traced(
        tmp_path, [*HEADS, NODE("Slice", ["c", "from", "to", "axes"], ["y"])], [1, 4, 8, 8], {**SPLIT, **cut}
    )
    assert ranges(tracer.parts("y", (1, 4, 8, 8))) == [(1, 0, 2, None), (1, 2, 4, 1.0)]


def test_a_constant_factor_scales_the_range(tmp_path):
    factor = np.array([640, 640, 480, 480, 1, 1, 1], np.float32).reshape(1, 7, 1, 1)
    nodes = [NODE("Sigmoid", ["x"], ["p"]), NODE("Mul", ["p", "k"], ["m"]), NODE("Sub", ["m", "o"], ["y"])]
    tracer = traced(tmp_path, nodes, [1, 7, 8, 8], {"k": factor, "o": np.float32(0.5)})
    found = ranges(tracer.parts("y", (1, 7, 8, 8)))
    assert found == [(1, 0, 2, 640.0), (1, 2, 4, 480.0), (1, 4, 7, 1.0)]


def test_three_scales_of_one_detector(tmp_path):
    nodes, names = [], []
    for scale in range(3):
        nodes += [
            NODE("Sigmoid", [f"x{scale}" if scale else "x"], [f"p{scale}"]),
            NODE("Split", [f"p{scale}", "sizes"], [f"b{scale}", f"s{scale}"], axis=2),
            NODE("Mul", [f"b{scale}", f"k{scale}"], [f"m{scale}"]),
            NODE("Concat", [f"m{scale}", f"s{scale}"], [f"c{scale}"], axis=2),
        ]
        names.append(f"c{scale}")
    nodes.append(NODE("Concat", names, ["y"], axis=1))
    strides = {f"k{i}": np.float32(8 * 2**i) for i in range(3)}
    inputs = [(1, 64, 7), (1, 16, 7), (1, 4, 7)]
    tracer = traced(tmp_path, nodes, [1, 84, 7], {**SPLIT, **strides}, inputs=inputs)
    assert ranges(tracer.parts("y", (1, 84, 7))) == [(2, 0, 4, None), (2, 4, 7, 1.0)]


def test_one_computation_is_one_part(tmp_path):
    tracer = traced(tmp_path, [NODE("Relu", ["x"], ["y"])], [1, 7, 8, 8])
    assert ranges(tracer.parts("y", (1, 7, 8, 8))) == [(0, 0, 1, None)]
    assert tracer.is_label("y") is False


def test_the_last_layers_are_what_is_moved_and_then_what_is_computed(tmp_path):
    nodes = [*HEADS, NODE("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])]
    traced(tmp_path, nodes, [1, 8, 8, 7], SPLIT)
    moved, computed = head_layers(OnnxOrigins(tmp_path / "model.onnx"))
    assert set(moved) == {"y", "c", "b"}
    assert set(computed) == {"y", "c", "b", "p"}


@pytest.mark.parametrize("name", ["elsewhere", ""])
def test_an_output_that_is_not_in_the_graph_is_one_part(tmp_path, name):
    tracer = traced(tmp_path, [NODE("Relu", ["x"], ["y"])], [1, 7, 8, 8])
    assert ranges(tracer.parts(name, (2, 3))) == [(0, 0, 2, None)]
    assert tracer.is_label(name) is None


@pytest.mark.parametrize(
    ("nodes", "is_label"),
    [
        ([NODE("ArgMax", ["x"], ["a"], axis=1), NODE("Cast", ["a"], ["y"], to=7)], True),
        ([NODE("Round", ["x"], ["r"]), NODE("Cast", ["r"], ["y"], to=7)], False),
        ([NODE("NonZero", ["x"], ["y"])], True),
    ],
)
def test_class_ids_are_labels_and_rounded_amounts_are_not(tmp_path, nodes, is_label):
    assert traced(tmp_path, nodes, None, kind=INT64).is_label("y") is is_label


@pytest.mark.parametrize(("inputs", "is_label"), [(INT64, True), (FLOAT, False)])
def test_whole_numbers_are_exact_where_nothing_is_rounded(tmp_path, inputs, is_label):
    ports = [helper.make_tensor_value_info(name, kind, [3]) for name, kind in (("x", inputs), ("y", INT64))]
    nodes = [NODE("Cast", ["x"], ["c"], to=INT64), NODE("Add", ["c", "one"], ["y"])]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(np.array(1), "one")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    assert Tracer(OnnxOrigins(tmp_path / "m.onnx")).is_label("y") is is_label
