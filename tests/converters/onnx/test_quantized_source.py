"""ONNX that is int8 already, as QDQ pairs or integer operators, to OpenVINO and TensorRT with its own scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge
from converters.onnx.quantized_graph import integer_operators_as_qdq, is_quantized
from converters.onnx_to_openvino import OnnxToOpenvino
from converters.onnx_to_tensorrt import OnnxToTensorrt
from converters.options import ConvertOptions
from converters.tensorrt.quantized_source import symmetric_qdq
from runtimes.errors import UsageError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")
openvino = pytest.importorskip("openvino")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
X = np.random.default_rng(1).normal(size=(8, 1, 3, 12, 12)).astype(np.float32)
KINDS = ["qdq uint8", "qdq int8", "operators"]


def floats(path: Path) -> Path:
    """Two convolutions, a residual sum, a pool and a dense layer."""

    def values(*shape):
        return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)

    constants = {
        "w": values(8, 3, 3, 3),
        "b": values(8),
        "w2": values(8, 8, 3, 3),
        "w3": values(8, 10),
        "b3": values(10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["d"], pads=[1] * 4),
        helper.make_node("Add", ["d", "r"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("x", 1, ["n", 3, 12, 12])], [value("y", 1, ["n", 10])]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


class Reader(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self._left = iter(X)

    def get_next(self):
        sample = next(self._left, None)
        return None if sample is None else {"x": sample}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantized")
    source, made = floats(folder / "float.onnx"), {}
    types, forms = quantization.QuantType, quantization.QuantFormat
    for kind in KINDS:
        made[kind] = folder / f"{kind.replace(' ', '_')}.onnx"
        quantization.quantize_static(
            source,
            made[kind],
            Reader(),
            quant_format=forms.QOperator if kind == "operators" else forms.QDQ,
            per_channel=kind != "operators",
            activation_type=types.QInt8 if kind == "qdq int8" else types.QUInt8,
            weight_type=types.QInt8,
            extra_options={"ActivationSymmetric": kind == "qdq int8", "WeightSymmetric": True},
        )
    return made


def run(path):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": sample})[0] for sample in X])


def decibels(expected, given) -> float:
    return float(10 * np.log10(expected.var() / max(np.square(given - expected).mean(), 1e-20)))


@pytest.mark.parametrize("kind", KINDS)
def test_openvino_answers_as_the_quantized_source(models, tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    made = OnnxToOpenvino().convert(models[kind], out, ConvertOptions(precision="int8"), None)
    compiled = openvino.Core().compile_model(str(made.model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = np.stack([compiled(sample)[0] for sample in X])
    assert decibels(run(models[kind]), given) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_tensorrt_gets_symmetric_pairs_that_answer_as_the_source(models, tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    options = OnnxToTensorrt.Options(precision="int8", release="10.3.0")
    made = OnnxToTensorrt().convert(models[kind], out, options, None)
    graph = onnx.load(made.model).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) >= 8
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert not any(node.op_type.startswith("QLinear") for node in graph.node)
    assert decibels(run(models[kind]), run(made.model)) > (100 if kind == "qdq int8" else 15)


def test_a_quantizer_that_also_clamped_keeps_doing_so(models):
    """Zero point 0 in uint8 is a ReLU; without it, negative values would pass."""
    proto = onnx.load(models["qdq uint8"])
    operators = [node.op_type for node in symmetric_qdq(proto).graph.node]
    assert "Relu" in operators
    assert operators.count("Clip") >= 1


def test_integer_operators_answer_the_same_as_pairs(models, tmp_path):
    onnx.save(integer_operators_as_qdq(onnx.load(models["operators"])), tmp_path / "qdq.onnx")
    assert decibels(run(models["operators"]), run(tmp_path / "qdq.onnx")) > 30


def test_only_quantized_models_skip_the_calibration(models, tmp_path):
    assert all(is_quantized(path) for path in models.values())
    plain = floats(tmp_path / "float.onnx")
    assert not is_quantized(plain)
    with pytest.raises(UsageError, match="calibration"):
        OnnxToOpenvino().convert(plain, tmp_path, ConvertOptions(precision="int8"), None)


def test_check_and_convert_agree(models, tmp_path):
    for kind in ("qdq uint8", "operators"):
        assert edge.check(models[kind], "jetson-orin-nano").runs
        made = edge.convert(
            models[kind], tmp_path / kind, device="jetson-orin-nano", format="tensorrt", precision="int8"
        )
        assert made.precision == "int8"
        assert made.proof["passed"]
        assert not edge.check(tmp_path / kind, "jetson-orin-nano").report.refusals
