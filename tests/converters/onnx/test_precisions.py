"""ONNX in fp16 and with int8 weights: the expected size and accuracy, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.onnx_to_onnx import OnnxToOnnx
from converters.options import ConvertOptions
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
GENERATOR = np.random.default_rng(0)
START = GENERATOR.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    GENERATOR.bit_generator.state = START


def write(path, nodes, constants, inputs, outputs, opset=13):
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (*inputs, *outputs)]
    graph = helper.make_graph(
        nodes,
        "network",
        values[: len(inputs)],
        values[len(inputs) :],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def product(path, weight, opset=13):
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["inner"]), helper.make_node("Relu", ["inner"], ["answer"])]
    ends = [("x", FLOAT, [1, len(weight)])], [("answer", FLOAT, [1, weight.shape[1]])]
    return write(path, nodes, {"weight": weight.astype(np.float32)}, *ends, opset)


@pytest.fixture
def network(tmp_path):
    return product(tmp_path / "network.onnx", GENERATOR.normal(size=(64, 32)))


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def answer(path, **feeds):
    with for_format("onnx").open(Artifact.open(path), RunOptions()) as session:
        given = session.run({spec.name: feeds[spec.name].astype(spec.dtype) for spec in session.inputs})
        return given, {spec.dtype for spec in session.inputs}


def x(strength=1.0, size=64):
    return (strength * GENERATOR.normal(size=(1, size))).astype(np.float32)


@pytest.mark.parametrize("io_dtype", [None, "float32", "float16"])
def test_fp16_is_half_as_large_and_its_ends_are_as_asked_for(network, out, io_dtype):
    made = OnnxToOnnx().convert(network, out, ConvertOptions(precision="fp16", io_dtype=io_dtype), None).model
    assert made.stat().st_size < 0.6 * network.stat().st_size
    values = x()
    (expected, _), (given, dtypes) = answer(network, x=values), answer(made, x=values)
    assert dtypes == {io_dtype or "float32"}
    np.testing.assert_allclose(given["answer"], expected["answer"], atol=0.05)
    assert all(tensor.data_type != FLOAT for tensor in onnx.load(made).graph.initializer)


def test_a_weight_beyond_fp16_is_named(tmp_path, out):
    model = product(tmp_path / "wide.onnx", np.full((64, 32), 70000.0))
    with pytest.raises(EngineError, match="the constant 'weight' reaches 7e4; fp16 ends at 65504") as caught:
        OnnxToOnnx().convert(model, out, ConvertOptions(precision="fp16"), None)
    assert "fp32" in caught.value.hint
    assert list(out.iterdir()) == []


def test_a_tensor_that_overflows_on_the_samples_is_named(network, out):
    quiet, loud = (Calibration({"x": np.stack([x(strength)])}) for strength in (1.0, 1e4))
    assert OnnxToOnnx().convert(network, out, ConvertOptions(precision="fp16"), quiet).model.is_file()
    (out / "network.onnx").unlink()
    with pytest.raises(EngineError, match=r"'inner' \(MatMul\) reaches"):
        OnnxToOnnx().convert(network, out, ConvertOptions(precision="fp16"), loud)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_a_mask_of_the_lowest_number_is_no_overflow(tmp_path, out, lowest):
    nodes = [helper.make_node("Add", ["x", "mask"], ["seen"]), helper.make_node("Softmax", ["seen"], ["answer"])]
    mask = np.array([[0, 0, lowest, 0]], np.float32)
    model = write(tmp_path / "masked.onnx", nodes, {"mask": mask}, [("x", FLOAT, [1, 4])], [("answer", FLOAT, [1, 4])])
    made = OnnxToOnnx().convert(model, out, ConvertOptions(precision="fp16"), None).model
    values = x(size=4)
    given, expected = answer(made, x=values)[0]["answer"], answer(model, x=values)[0]["answer"]
    np.testing.assert_allclose(given, expected, atol=2e-3)
    assert given[0, 2] == 0


def test_int8_weights_are_a_quarter_and_nearly_right(network, out):
    made = OnnxToOnnx().convert(network, out, ConvertOptions(precision="w8"), None).model
    assert made.stat().st_size < 0.35 * network.stat().st_size
    values = x()
    (expected, _), (given, dtypes) = answer(network, x=values), answer(made, x=values)
    assert dtypes == {"float32"}
    np.testing.assert_allclose(given["answer"], expected["answer"], atol=0.3)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Gemm", "transposed Gemm"])
def test_each_output_has_a_scale_of_its_own(tmp_path, out, operator):
    """One output a thousand times as strong as the others must not spoil them."""
    name = operator.split()[-1]
    is_gemm, axis = name == "Gemm", {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "transposed Gemm": 0}[operator]
    shape = [16, 16] if is_gemm else [16, 16, 3, 3]
    weight = GENERATOR.normal(size=shape).astype(np.float32)
    weight[(slice(None),) * axis + (0,)] *= 1000
    attributes = {"transB": 1} if operator == "transposed Gemm" else {}
    sizes = [1, 16] if is_gemm else [1, 16, 8, 8]
    answer_shape = [1, 16] if is_gemm else [1, 16, *([6, 6] if name == "Conv" else [10, 10])]
    nodes = [helper.make_node(name, ["x", "weight"], ["answer"], **attributes)]
    ends = [("x", FLOAT, sizes)], [("answer", FLOAT, answer_shape)]
    model = write(tmp_path / "scaled.onnx", nodes, {"weight": weight}, *ends)
    made = OnnxToOnnx().convert(model, out, ConvertOptions(precision="w8"), None).model
    values = GENERATOR.normal(size=sizes).astype(np.float32)
    expected, given = answer(model, x=values)[0]["answer"][:, 1:], answer(made, x=values)[0]["answer"][:, 1:]
    assert np.abs(given - expected).max() < 0.02 * np.abs(expected).max()


def test_small_weights_and_those_of_zeros_stay_right(tmp_path, out):
    small = product(tmp_path / "small.onnx", GENERATOR.normal(size=(4, 3)))
    made = OnnxToOnnx().convert(small, out, ConvertOptions(precision="w8"), None).model
    assert [node.op_type for node in onnx.load(made).graph.node] == ["MatMul", "Relu"]
    zeros = product(tmp_path / "zeros.onnx", np.zeros((64, 32)))
    given, _ = answer(OnnxToOnnx().convert(zeros, out, ConvertOptions(precision="w8"), None).model, x=x())
    # Not zero to the bit: ONNX Runtime computes with bytes around 128 and takes their share off again.
    assert np.abs(given["answer"]).max() < 1e-3


def test_what_cannot_be_had_is_refused(tmp_path, network, out):
    with pytest.raises(UsageError, match="ONNX w8 cannot take float16"):
        OnnxToOnnx().convert(network, out, ConvertOptions(precision="w8", io_dtype="float16"), None)
    with pytest.raises(UsageError, match="has opset 13, not 17"):
        OnnxToOnnx().convert(network, out, ConvertOptions(precision="fp16", opset=17), None)
    old = product(tmp_path / "old.onnx", GENERATOR.normal(size=(64, 32)), opset=11)
    for precision, opset in (("w8", 13), ("fp16", 11)):  # int8 per channel needs 13
        made = OnnxToOnnx().convert(old, out, ConvertOptions(precision=precision), None)
        assert onnx.load(made.model).opset_import[0].version == opset


def calibrated(path, out, feeds):
    """Convert to int8, and return the answers of source and result to the last of the samples, by ONNX Runtime."""
    onnxruntime = pytest.importorskip("onnxruntime")
    samples = {name: np.stack(values) for name, values in feeds.items()}
    result = OnnxToOnnx().convert(path, out, ConvertOptions(precision="int8"), Calibration(samples)).model
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")  # no kernels that saturate in 16 bits
    pairs = []
    for model in (path, result):
        session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        places = range(len(next(iter(samples.values()))))
        rows = [session.run(None, {name: values[at] for name, values in samples.items()})[0] for at in places]
        pairs.append(np.stack(rows))
    return pairs


def snr_db(expected, actual):
    return 10 * np.log10(np.square(expected - expected.mean()).sum() / np.square(expected - actual).sum())


def test_two_layers_that_share_weights_become_int8(tmp_path, out):
    nodes = [
        helper.make_node("MatMul", ["old", "w"], ["a"]),
        helper.make_node("MatMul", ["new", "w"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["change"]),
    ]
    ends = [("old", FLOAT, [1, 12]), ("new", FLOAT, [1, 12])], [("change", FLOAT, [1, 5])]
    weights = {"w": GENERATOR.normal(size=(12, 5)).astype(np.float32)}
    path = write(tmp_path / "twins.onnx", nodes, weights, *ends)
    expected, actual = calibrated(path, out, {name: [x(size=12) for _ in range(20)] for name in ("old", "new")})
    assert snr_db(expected, actual) > 20


@pytest.mark.parametrize("lowest", [-1e4, -1e9, -3.4e38])
def test_a_mask_before_a_softmax_does_not_cost_the_scores_their_int8_steps(tmp_path, out, lowest):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Mul", ["hidden", "lowest"], ["mask"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["answer"]),
    ]
    ends = [("x", FLOAT, [1, 12]), ("hidden", FLOAT, [1, 9])], [("answer", FLOAT, [1, 4])]
    constants = {name: GENERATOR.normal(size=size).astype(np.float32) for name, size in (("w", (12, 9)), ("v", (9, 4)))}
    path = write(tmp_path / "attention.onnx", nodes, {**constants, "lowest": np.float32(lowest)}, *ends)
    hidden = [(np.arange(9) >= length)[np.newaxis].astype(np.float32) for length in GENERATOR.integers(3, 10, 20)]
    expected, actual = calibrated(path, out, {"x": [x(0.5, 12) for _ in range(20)], "hidden": hidden})
    assert snr_db(expected, actual) > 20


def test_a_branch_that_reads_a_tensor_from_outside_becomes_fp16(tmp_path, out):
    inner = helper.make_tensor_value_info("inner", FLOAT, [1, 64])
    branches = {
        name: helper.make_graph([helper.make_node(operator, ["bounded"], ["inner"])], name, [], [inner])
        for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("Tanh", ["x"], ["bounded"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["strong"]),
        helper.make_node("If", ["strong"], ["answer"], **branches),
    ]
    ends = [("x", FLOAT, [1, 64])], [("answer", FLOAT, [1, 64])]
    path = write(tmp_path / "branches.onnx", nodes, {"limit": np.float32(2.5)}, *ends)
    result = (
        OnnxToOnnx().convert(path, out, ConvertOptions(precision="fp16"), Calibration({"x": np.stack([x()])})).model
    )
    for strength, function in ((0.1, np.abs), (5, np.negative)):
        feed = x(strength)
        assert np.allclose(answer(result, x=feed)[0]["answer"], function(np.tanh(feed)), atol=2e-3)
