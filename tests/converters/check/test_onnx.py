"""ONNX files as plain values: nodes, shapes and multiply-adds, compared with the onnx package."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.onnx.graph import OnnxGraph, read_onnx
from converters.onnx.shape_inference import infer_sizes, macs_of_nodes
from runtimes.errors import InputError

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64 = 1, 7


def constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def weights(name: str, *shape: int) -> Any:
    return constant(name, np.zeros(shape, np.float32))


def graph_of(nodes: list[Any], constants: list[Any], shape: tuple[Any, ...] = (1, 3, 32, 32)) -> Any:
    start = helper.make_tensor_value_info("x", FLOAT, shape)
    end = helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)
    graph = helper.make_graph(nodes, "g", [start], [end], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def read(tmp_path: Path, model: Any) -> OnnxGraph:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return read_onnx(path)


def network() -> Any:
    """Convolutions of several kinds, joined branches, pooling, and a dense end."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w2"], ["d"], group=8, auto_pad="SAME_UPPER", strides=[2, 2]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("Concat", ["d", "p"], ["c"], axis=1),
        node("ConvTranspose", ["c", "w3"], ["t"], strides=[2, 2]),
        node("AveragePool", ["c"], ["v"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["v"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["h"], transB=1),
        node("Reshape", ["h", "shape"], ["m"]),
        node("Transpose", ["m"], ["mt"], perm=[0, 2, 1]),
        node("MatMul", ["m", "mt"], ["mm"]),
        node("Add", ["mm", "one"], ["y"]),
    ]
    constants = [
        weights("w1", 8, 3, 3, 3),
        weights("b1", 8),
        weights("w2", 8, 1, 5, 5),
        weights("w3", 16, 4, 2, 2),
        weights("w4", 12, 16),
        weights("b4", 12),
        constant("shape", np.array([0, 3, -1], np.int64)),
        weights("one", 3, 1),
    ]
    return graph_of(nodes, constants)


def test_sizes_are_those_of_onnx(tmp_path: Path) -> None:
    model = network()
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    expected = {
        info.name: tuple(one.dim_value for one in info.type.tensor_type.shape.dim)
        for info in (*inferred.graph.value_info, *inferred.graph.output)
    }
    found = infer_sizes(read(tmp_path, model))
    assert len(expected) == 14
    for name in expected:
        assert found[name] == expected[name], name


def test_multiply_adds_by_the_formulas(tmp_path: Path) -> None:
    graph = read(tmp_path, network())
    counts = macs_of_nodes(graph)
    assert counts is not None
    by_op = {(node.op, node.outputs[0]): count for node, count in zip(graph.nodes, counts, strict=True) if count}
    assert by_op == {
        ("Conv", "a"): 16 * 16 * 8 * (3 * 3 * 3),
        ("Conv", "d"): 8 * 8 * 8 * (5 * 5),
        ("ConvTranspose", "t"): 8 * 8 * 16 * (4 * 2 * 2),
        ("Gemm", "h"): 12 * 16,
        ("MatMul", "mm"): 3 * 3 * 4,
    }


def test_what_the_file_tells_of_shapes_is_believed(tmp_path: Path) -> None:
    node = helper.make_node("Custom", ["x"], ["u"], domain="some.where")
    last = helper.make_node("Gemm", ["u", "w"], ["y"])
    model = graph_of([node, last], [weights("w", 10, 4)])
    assert macs_of_nodes(read(tmp_path, model)) is None
    model.graph.value_info.append(helper.make_tensor_value_info("u", FLOAT, ("batch", 10)))
    graph = read(tmp_path, model)
    assert graph.nodes[0].op == "some.where.Custom"
    assert graph.shapes["u"] == ("batch", 10)
    assert macs_of_nodes(graph) == [0, 40]


def test_branches_and_bodies_are_read_too(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("HardSwish", ["x"], ["i"])], "then", [], [helper.make_tensor_value_info("i", FLOAT, None)]
    )
    choice = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    assert [node.op for node in read(tmp_path, graph_of([choice], [])).nodes] == ["If", "HardSwish", "HardSwish"]


def test_constants_are_found_where_they_are_made(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant("", np.array([3, 4], np.int64))),
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    graph = read(tmp_path, graph_of(nodes, [constant("q", np.zeros(4, np.int8)), constant("s", np.float32(1))]))
    assert graph.constants["k"].integers() == (3, 4)
    assert graph.is_constant("w")
    assert not graph.is_constant("y")
    assert graph.constants["q"].is_zero
    assert not graph.constants["k"].is_zero
    assert graph.parameter_bytes == 4 + 4 + 16
    assert graph.opset == 17


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"not a model at all", b"\xff" * 64])
def test_what_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    assert str(path) in caught.value.message


def test_mutated_files_end_in_one_line_or_an_answer(tmp_path: Path) -> None:
    whole, chance, path = network().SerializeToString(), random.Random(11), tmp_path / "m.onnx"
    outcomes = set()
    for _ in range(400):
        broken = bytearray(whole[: chance.randrange(4, len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 9)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        outcomes.add(outcome(path))
    assert outcomes == {"an answer", "one line"}


def outcome(path: Path) -> str:
    try:
        macs_of_nodes(read_onnx(path))
    except InputError as error:
        return "one line" if "\n" not in error.message else error.message
    return "an answer"
