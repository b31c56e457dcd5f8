"""Which models take pixels unscaled."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.calibration.input_range import PIXELS, pixel_range
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.errors import InputError

INPUT: dict[str, Any] = {"class_name": "InputLayer", "config": {}}
FLIP: dict[str, Any] = {"class_name": "RandomFlip", "config": {}}
DENSE: dict[str, Any] = {"class_name": "Dense", "config": {"units": 3}}


def _layer(name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": config}


def _keras(path: Path, *layers: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
    return path


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([INPUT, _layer("Rescaling", scale=1 / 127.5, offset=-1.0), DENSE], PIXELS),
        ([INPUT, FLIP, _layer("Rescaling", scale=1 / 255, offset=0.0), DENSE], PIXELS),
        ([INPUT, _layer("Functional", layers=[INPUT, _layer("Rescaling", scale=1 / 255)]), DENSE], PIXELS),
        ([{"class_name": "Sequential", "config": [INPUT, _layer("Rescaling", scale=1 / 255)]}], PIXELS),
        ([INPUT, _layer("Normalization", mean=[123.7, 116.3, 103.5], variance=[3409.6] * 3)], PIXELS),
        ([INPUT, _layer("Normalization", mean=[0.485, 0.456, 0.406], variance=[0.05] * 3)], None),
        ([INPUT, _layer("Normalization", mean=None, variance=None)], None),
        ([INPUT, _layer("Rescaling", scale=2.0, offset=-1.0)], None),
        ([INPUT, _layer("Rescaling", scale={"class_name": "__numpy__", "config": {"value": [1 / 255]}})], PIXELS),
        ([INPUT, DENSE, _layer("Rescaling", scale=1 / 255)], None),
        ([INPUT], None),
    ],
)
def test_the_first_layer_tells(tmp_path, layers, expected):
    assert pixel_range(_keras(tmp_path / "m.keras", *layers), "keras") == expected


def test_an_h5_file_tells_too(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"config": {"layers": [INPUT, _layer("Rescaling", scale=1 / 255)]}})
    assert pixel_range(tmp_path / "m.h5", "keras") == PIXELS


def test_a_broken_file_is_an_error_and_another_format_tells_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{")
    with pytest.raises(InputError, match=r"m\.keras"):
        pixel_range(tmp_path / "m.keras", "keras")
    assert pixel_range(tmp_path / "m.tflite", "tflite") is None


def _onnx(path: Path, op: str, value: Any, is_second: bool = True) -> Path:
    """Transpose → op with a constant → mean over the picture → [1, 3]."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node(op, ["turned", "c"] if is_second else ["c", "turned"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["y"], axes=[2, 3], keepdims=0),
    ]
    ends = [helper.make_tensor_value_info("x", kind, [1, 8, 8, 3])], [helper.make_tensor_value_info("y", kind, [1, 3])]
    constant = onnx.numpy_helper.from_array(np.asarray(value, np.float32), "c")
    graph = helper.make_graph(nodes, "g", *ends, [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("Div", 255, PIXELS),
        ("Mul", 1 / 127.5, PIXELS),
        ("Sub", [[[123.7]], [[116.3]], [[103.5]]], PIXELS),
        ("Add", [[[-103.9]], [[-116.8]], [[-123.7]]], PIXELS),
        ("Sub", 0.5, None),
        ("Mul", 2, None),
    ],
)
def test_the_first_node_tells(tmp_path, op, value, expected):
    assert pixel_range(_onnx(tmp_path / "m.onnx", op, value), "onnx") == expected


def test_a_constant_that_is_a_node_tells_too(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(_onnx(tmp_path / "m.onnx", "Div", 255))
    constant = model.graph.initializer.pop()
    kinds = {"value": constant}, {"value_float": 255.0}
    for kind, expected in zip(kinds, (PIXELS, None), strict=True):  # what is not a tensor is not looked at
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        copy.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], **kind))
        onnx.save(copy, tmp_path / "node.onnx")
        assert pixel_range(tmp_path / "node.onnx", "onnx") == expected


def test_the_proof_is_made_with_pixels_and_says_so(tmp_path):
    pytest.importorskip("onnxruntime")
    model = _onnx(tmp_path / "m.onnx", "Div", 255)
    (tmp_path / "out").mkdir()
    request = ConvertRequest(
        source=model, steps=(), format="onnx", options=ConvertOptions(), out=tmp_path / "out", scratch=tmp_path
    )
    assert convert(request, lambda _: None).proof["range"] == [0, 255]
