"""A small ONNX classifier, and conversion steps with correct or wrong results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.base import ConversionOutput, Converter, Requirement


def write_classifier(path: Path, change=lambda weights: weights, side: int = 4, free: bool = False) -> Path:
    """Write a dense softmax classifier, [1, side, side, 3] → [1, 5], opset 13, with seeded weights after `change`."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    generator = np.random.default_rng(5)
    weights = generator.normal(0, 0.6, (side * side * 3, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", kind, [1, "rows" if free else side, side, 3])],
        [helper.make_tensor_value_info("scores", kind, [1, 5])],
        [numpy_helper.from_array(change(weights), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def classifier(tmp_path) -> Path:
    """`classifier.onnx`; running it needs onnxruntime."""
    pytest.importorskip("onnxruntime")
    return write_classifier(tmp_path / "classifier.onnx")


@pytest.fixture
def make_classifier(tmp_path):
    """Return a function that writes a classifier with changed weights."""
    pytest.importorskip("onnxruntime")
    return lambda name="changed.onnx", **keywords: write_classifier(tmp_path / name, **keywords)


class CopyStep(Converter):
    """A step from ONNX to ONNX that writes `result`, or copies its source, and records its calls."""

    source = "onnx"
    target = "onnx"
    precisions = ("fp32", "fp16", "int8")
    requires = (Requirement("numpy"),)

    def __init__(self, result: Path | None = None) -> None:
        self.result = result
        self.calls: list[tuple[object, object]] = []

    def convert(self, model, out, options, calibration):
        self.calls.append((options, calibration))
        return ConversionOutput(model=Path(shutil.copyfile(self.result or model, out / "copied.onnx")))


@pytest.fixture
def step(monkeypatch):
    """The only registered step, `onnx_to_onnx`; set its `result` to the model that it should write."""
    only = CopyStep()
    monkeypatch.setattr("converters.registry.all_converters", lambda: (only,))
    return only


@pytest.fixture
def moved_outside() -> Callable[[Path, Path], Path]:
    """Return a function that moves the weights of a TFLite file after the FlatBuffer, as ai-edge-quantizer does."""
    return _moved_outside


def _moved_outside(model: Path, out: Path) -> Path:
    """Write `model` with the data of every buffer after the FlatBuffer, and operators at version 1."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    network = schema.ModelT.InitFromPackedBuf(model.read_bytes(), 0)
    for code in network.operatorCodes:
        code.version = 1
    contents = [b"" if buffer.data is None else bytes(bytearray(buffer.data)) for buffer in network.buffers]

    def pack(start: int) -> bytes:
        for buffer, content in zip(network.buffers, contents, strict=True):
            if content:
                buffer.data, buffer.offset, buffer.size = None, start, len(content)
                start += _padded(len(content))
        builder = flatbuffers.Builder(1024)
        builder.Finish(network.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    start = _padded(len(pack(16)))  # the size of the FlatBuffer does not depend on the offsets
    tail = b"".join(content.ljust(_padded(len(content)), b"\0") for content in contents)
    out.write_bytes(pack(start).ljust(start, b"\0") + tail)
    return out


def _padded(size: int) -> int:
    return -(-size // 16) * 16
