"""Rounding errors of float32 do not fail a result, and a real fault in the same network does."""

from __future__ import annotations

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from converters.proof.conditioning import beyond_rounding
from runtimes.errors import ProofError

GENERATOR = np.random.default_rng(4)
NEAR_1000 = (1000 + GENERATOR.uniform(-0.02, 0.02, (12, 1, 6))).astype(np.float32)


def write(path, nodes, **constants):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        [helper.make_tensor_value_info("level", kind, [1, 6])],
        [helper.make_tensor_value_info("share", kind, [1, 6])],
        [onnx.numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def source(path):
    """tanh((level − 1000) · 80): the last bit of a level of 1000 is 6e-5, and moves the answer by 5e-3."""
    nodes = [("Sub", ["level", "k"], ["d"]), ("Mul", ["d", "s"], ["m"]), ("Tanh", ["m"], ["share"])]
    return write(path, nodes, k=1000, s=80)


def in_another_order(path, off=0.0):
    """tanh(level · 80 − 80000 + off): the same, rounded at 80000."""
    nodes = [("Mul", ["level", "s"], ["m"]), ("Sub", ["m", "k"], ["d"]), ("Tanh", ["d"], ["share"])]
    return write(path, nodes, k=80000 - off, s=80)


@pytest.fixture
def request_for(tmp_path):
    pytest.importorskip("onnxruntime")
    np.savez(tmp_path / "levels.npz", level=NEAR_1000)
    (tmp_path / "out").mkdir()
    return ConvertRequest(
        source=source(tmp_path / "source.onnx"),
        steps=("onnx_to_onnx",),
        format="onnx",
        options=ConvertOptions(precision="fp32"),
        samples=tmp_path / "levels.npz",
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
    )


def test_another_order_of_rounding_passes_and_is_reported(request_for, step, tmp_path):
    step.result = in_another_order(tmp_path / "result.onnx")
    result = convert(request_for, lambda _: None)
    assert any("last bit of an input moves the source's own output 'share'" in note for note in result.notes)


@pytest.mark.parametrize("off", [0.05, -0.2])
def test_a_fault_is_found_in_the_same_network(request_for, step, tmp_path, off):
    step.result = in_another_order(tmp_path / "result.onnx", off)
    with pytest.raises(ProofError, match="output 'share' is too far from the source's"):
        convert(request_for, lambda _: None)


def test_only_the_samples_that_amplify_rounding_get_an_allowance():
    expected = {"y": GENERATOR.uniform(-1, 1, (3, 4)).astype(np.float32)}
    given = {"y": expected["y"] + np.float32(1e-3)}
    rest = beyond_rounding(expected, given, {"y": np.array([0, 1e-4, 1.0])})["y"] - expected["y"]
    assert np.allclose(rest[0], 1e-3, rtol=1e-3)
    assert np.allclose(rest[1:], 0)
    far = beyond_rounding(expected, {"y": expected["y"] + 0.5}, {"y": np.full(3, 1.0)})["y"]
    assert np.allclose(far - expected["y"], 0.5 - 0.005 * np.ptp(expected["y"]), atol=1e-4)


def test_answers_of_another_shape_are_left_as_they_are():
    given = {"y": np.ones((2, 3), np.float32)}
    assert beyond_rounding({"y": np.zeros((2, 2), np.float32)}, given, {"y": np.ones(2)})["y"] is given["y"]
