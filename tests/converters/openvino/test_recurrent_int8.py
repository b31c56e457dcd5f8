"""Recurrent layers in int8 OpenVINO answer like their source, on CPUs with and without int8 transformations."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.onnx_to_openvino import OnnxToOpenvino, read_network
from converters.options import ConvertOptions

GENERATOR = np.random.default_rng(6)
SEQUENCES = GENERATOR.standard_normal((20, 7, 1, 5)).astype(np.float32)


def write(path, operator, gates, directions):
    """A recurrent layer over time, whose last state goes through a dense layer."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    sizes = {"w": (gates * 6, 5), "r": (gates * 6, 6), "b": (gates * 12,)}
    constants = {name: GENERATOR.normal(0, 0.4, (directions, *size)) for name, size in sizes.items()}
    constants["dense"] = GENERATOR.normal(size=(6, 3))
    direction = "bidirectional" if directions == 2 else "forward"
    nodes = [
        helper.make_node(operator, ["x", "w", "r", "b"], ["", "last"], hidden_size=6, direction=direction),
        helper.make_node("MatMul", ["last", "dense"], ["answer"]),
    ]
    outputs = {"last": [directions, 1, 6], "answer": [directions, 1, 3]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [7, 1, 5])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("operator", "gates", "directions"), [("LSTM", 4, 1), ("LSTM", 4, 2), ("GRU", 3, 1)])
def test_states_stay_alive_whatever_the_plugin_does_with_int8(tmp_path, operator, gates, directions):
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    source = write(tmp_path / "recurrent.onnx", operator, gates, directions)
    (tmp_path / "out").mkdir()
    options = ConvertOptions(precision="int8")
    result = OnnxToOpenvino().convert(source, tmp_path / "out", options, Calibration({"x": SEQUENCES})).model
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    expected = [session.run(None, {"x": one}) for one in SEQUENCES]
    for config in ({}, {"LP_TRANSFORMS_MODE": "NO"}):
        compiled = openvino.Core().compile_model(str(result), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **config})
        for place, name in enumerate(("last", "answer")):
            truth = np.stack([row[place] for row in expected])
            given = np.stack([compiled([one])[name] for one in SEQUENCES])
            assert 10 * np.log10(np.var(truth) / np.mean(np.square(truth - given))) > 8, (name, config)


def test_operations_that_openvino_rewrites_have_the_same_names_each_time(tmp_path):
    """Layers to keep in float are named after one conversion, and found by these names in the next one."""
    pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    constants = {"first": np.int64(0), "axis": np.int64([0]), "width": np.int64([3]), "zero": np.float32([[0]])}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "first"], ["rows"], name="rows"),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["rows_1d"], name="rows_1d"),
        helper.make_node("Concat", ["rows_1d", "width"], ["sizes"], name="sizes", axis=0),
        helper.make_node("Expand", ["zero", "sizes"], ["state"], name="state"),
        helper.make_node("Add", ["x", "state"], ["y"], name="y"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", kind.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    source = tmp_path / "state.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), source)
    networks = [read_network(source, ConvertOptions()) for _ in range(2)]
    first, second = ([one.get_friendly_name() for one in network.get_ordered_ops()] for network in networks)
    assert any(name.startswith("Gather_") for name in first)
    assert first == second
