"""Sizes that a file does not declare, compared with the arrays of ONNX's own tests of its operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from converters.onnx.graph import read_onnx
from converters.onnx.shape_inference import infer_sizes, macs_of_nodes
from converters.onnx.shape_rules import RULES

_SIZE_LIKE = 16  # elements: inputs such as axes, which a model holds as constants
_FEWEST_KNOWN = 0.9


def _sizes(model: ModelProto, folder: Path) -> list[tuple[int, ...] | None]:
    """The sizes inferred for the outputs, of which the file declares nothing."""
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, folder / "m.onnx")
    found = infer_sizes(read_onnx(folder / "m.onnx"))
    return [found.get(output.name) for output in model.graph.output]


def _store_sizes(model: ModelProto, inputs) -> None:
    """Make constants of the inputs that can be axes, sizes or scales."""
    given = list(zip(model.graph.input, inputs, strict=False))
    for info, array in given[1:] if len(given) > 1 else []:
        if isinstance(array, np.ndarray) and array.dtype in (np.int64, np.float32) and array.size <= _SIZE_LIKE:
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
            model.graph.input.remove(info)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the casts that make the tests' data
def test_inferred_sizes_are_those_of_the_arrays_in_onnxs_own_tests(tmp_path):
    tried, known, wrong = 0, 0, []
    for case in collect_testcases(None):
        operators = {node.op_type for node in case.model.graph.node}
        if not operators <= RULES.keys() or not case.data_sets:
            continue
        (inputs, outputs), *_ = case.data_sets
        _store_sizes(case.model, inputs)
        for inferred, array in zip(_sizes(case.model, tmp_path), outputs, strict=False):
            if isinstance(array, np.ndarray):
                tried += 1
                known += inferred is not None
                if inferred not in (None, array.shape):
                    wrong.append(f"{case.name}: {inferred}, not {array.shape}")
    assert wrong == []
    assert tried > 700
    assert known / tried > _FEWEST_KNOWN


def _model(nodes, constants, opset=18, shape=(1, 6, 8, 8)):
    start = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", [start], [end], stored), opset_imports=[helper.make_opsetid("", opset)]
    )


@pytest.mark.parametrize(
    ("op", "opset", "options", "constants", "expected"),
    [
        ("Squeeze", 11, {"axes": [0]}, {}, (6, 8, 8)),
        ("Unsqueeze", 11, {"axes": [0, -1]}, {}, (1, 1, 6, 8, 8, 1)),
        ("ReduceSum", 11, {"axes": [1], "keepdims": 0}, {}, (1, 8, 8)),
        ("Slice", 9, {"starts": [1], "ends": [-1], "axes": [2]}, {}, (1, 6, 6, 8)),
        ("Split", 11, {"split": [2, 4], "axis": 1}, {}, (1, 2, 8, 8)),
        ("Pad", 2, {"pads": [0, 0, 1, 1, 0, 0, 0, 0]}, {}, (1, 6, 9, 9)),
        ("Pad", 18, {}, {"pads": [1, 2], "": 0, "axes": [2]}, (1, 6, 11, 8)),
        ("Upsample", 9, {}, {"scales": np.array([1, 1, 2, 2], np.float32)}, (1, 6, 16, 16)),
        ("Resize", 18, {}, {"": 0, " ": 0, "sizes": [1, 6, 5, 7]}, (1, 6, 5, 7)),
    ],
)
def test_attributes_of_old_operator_sets_and_inputs_of_new_ones(op, opset, options, constants, expected, tmp_path):
    names = [name.strip() for name in constants]
    outputs = ["y", "z"] if op == "Split" else ["y"]
    model = _model(
        [helper.make_node(op, ["x", *names], outputs, **options)],
        {name: value for name, value in constants.items() if name.strip()},
        opset,
    )
    assert _sizes(model, tmp_path) == [expected]


def test_sizes_that_the_graph_computes_are_followed(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "two"], ["height"]),
        helper.make_node("Mul", ["height", "height"], ["pixels"]),
        helper.make_node("Unsqueeze", ["pixels", "zero"], ["last"]),
        helper.make_node("Slice", ["s", "zero", "end"], ["first"]),
        helper.make_node("Concat", ["first", "last"], ["new"], axis=0),
        helper.make_node("Reshape", ["x", "new"], ["y"]),
    ]
    assert _sizes(_model(nodes, {"two": 2, "zero": [0], "end": [2]}), tmp_path) == [(1, 6, 64)]


def test_an_axis_that_the_file_leaves_free_inside_follows_from_the_inputs(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = _model(nodes, {"w": np.ones((8, 5), np.float32)})
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ("unknown", "c", "h", 8)))
    onnx.save(model, tmp_path / "m.onnx")
    assert macs_of_nodes(read_onnx(tmp_path / "m.onnx")) == [0, 6 * 8 * 8 * 5]


def test_recurrent_layers_are_counted(tmp_path):
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    constants = {"w": np.ones((1, 16, 3), np.float32), "r": np.ones((1, 16, 4), np.float32)}
    onnx.save(_model([node], constants, shape=(10, 2, 3)), tmp_path / "m.onnx")
    assert macs_of_nodes(read_onnx(tmp_path / "m.onnx")) == [10 * 2 * 16 * (3 + 4)]


@pytest.mark.parametrize(
    ("op", "options", "constants"),
    [
        ("Reshape", {}, {"shape": [0, -1, 0, 0]}),
        ("Transpose", {"perm": [0, 0, 1, 2]}, {}),
        ("Split", {"axis": 9}, {}),
        ("Slice", {}, {"starts": [0], "ends": [1], "axes": [7]}),
        ("Tile", {}, {"repeats": [-1, 1, 1, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}, {}),
        ("Gather", {}, {}),
    ],
)
def test_a_node_that_is_not_valid_has_no_sizes(op, options, constants, tmp_path):
    shape = (1, 6, 8, 8) if op != "Reshape" else (0, 0, 8, 8)
    model = _model([helper.make_node(op, ["x", *constants], ["y"], **options)], constants, shape=shape)
    assert _sizes(model, tmp_path) == [None]
