"""Types of inputs, outputs and casts that each release of TensorRT reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge
from converters.calibration.dataset import Calibration
from converters.onnx_to_tensorrt import OnnxToTensorrt
from runtimes.errors import RefusedError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, UINT8, INT16, UINT16 = (onnx.TensorProto.DataType.Value(name) for name in ("FLOAT", "UINT8", "INT16", "UINT16"))
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
PICTURES = np.random.default_rng(1).integers(0, 256, (4, 1, 8, 8, 3)).astype(np.uint8)


def network(path: Path, *first, kind: int = UINT8, end: int = FLOAT, last=()) -> Path:
    """A picture in NHWC; `first` are nodes from "x" to "f", then a convolution, then `last` from "c" to "y"."""
    nodes = [*first, helper.make_node("Conv", ["f", "w"], ["c" if last else "y"]), *last]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", kind, ["n", 8, 8, 3])], [value("y", end, ["n", 4, 6, 6])]
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.array(3, np.uint8), "three")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    return path


def cast(source: str, result: str, to: int = FLOAT):
    return helper.make_node("Cast", [source], [result], to=to)


def transpose(source: str, result: str):
    return helper.make_node("Transpose", [source], [result], perm=[0, 3, 1, 2])


def convert(model: Path, out: Path, release: str, precision: str = "fp16"):
    out.mkdir()
    options = OnnxToTensorrt.Options(precision=precision, release=release, scratch=str(out / "scratch"))
    return OnnxToTensorrt().convert(model, out, options, Calibration({"x": PICTURES}))


def input_type(path: Path) -> int:
    return onnx.load(path).graph.input[0].type.tensor_type.elem_type


def run(path: Path, x):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize(("release", "expected"), [("8.2.1", FLOAT), ("8.5.2", UINT8), ("10.3.0", UINT8)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_picture_of_bytes_is_float32_where_the_release_takes_no_bytes(tmp_path, release, expected, precision):
    model = network(tmp_path / "m.onnx", cast("x", "floats"), transpose("floats", "f"))
    made = convert(model, tmp_path / "out", release, precision)
    assert input_type(made.model) == expected
    assert ("cast_on_host" in made.facts) == (expected == FLOAT)
    assert any("host casts" in note for note in made.notes) == (expected == FLOAT)
    if precision == "fp32":
        x = PICTURES[0].astype(np.float32 if expected == FLOAT else np.uint8)
        np.testing.assert_allclose(run(made.model, x), run(model, PICTURES[0]), rtol=1e-4)


@pytest.mark.parametrize("kind", [UINT8, UINT16, INT16])
def test_bytes_that_are_moved_before_their_cast_are_float32_in_every_release(tmp_path, kind):
    model = network(tmp_path / "m.onnx", transpose("x", "moved"), cast("moved", "f"), kind=kind)
    for release in ("8.2.1", "10.3.0"):
        assert input_type(convert(model, tmp_path / release, release).model) == FLOAT


def test_bytes_that_are_computed_with_are_refused_by_name_by_convert_and_check(tmp_path):
    add = helper.make_node("Add", ["x", "three"], ["sum"], name="wraps")
    model = network(tmp_path / "m.onnx", add, cast("sum", "floats"), transpose("floats", "f"))
    with pytest.raises(
        RefusedError, match=r"TensorRT 8\.2 does not take the uint8 input 'x', and Add 'wraps' computes on"
    ):
        convert(model, tmp_path / "out", "8.2.1")
    checked = edge.check(model, "jetson-nano")
    assert not checked.report.most_runs
    assert "uint8 input 'x'" in checked.report.refusals[0].reason


def test_an_output_of_bytes_is_refused_before_8_5(tmp_path):
    first = (cast("x", "floats"), transpose("floats", "f"))
    model = network(tmp_path / "m.onnx", *first, end=UINT8, last=[cast("c", "y", UINT8)])
    with pytest.raises(RefusedError, match="uint8"):
        convert(model, tmp_path / "out", "8.2.1", "fp32")
    assert convert(model, tmp_path / "newer", "8.5.2", "fp32").model.is_file()


def test_a_whole_conversion_proves_the_float_input_and_says_so_in_the_manifest(tmp_path):
    model = network(tmp_path / "m.onnx", cast("x", "floats"), transpose("floats", "f"))
    checked = edge.check(model, "jetson-nano")
    assert any("edge convert writes it as float32" in warning for warning in checked.report.warnings)
    edge.convert(model, tmp_path / "made", device="jetson-nano", precision="fp16")
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert manifest["inputs"][0]["dtype"] == "float32"
    assert manifest["conversion"]["cast_on_host"] == {"x": ["uint8", "float32"]}
    assert not edge.check(tmp_path / "made", "jetson-nano").report.refusals
