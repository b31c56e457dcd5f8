"""fp16 as a device computes it: overflow is named by node, and masks are clamped in the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge
from converters.calibration.dataset import Calibration
from converters.onnx.float16_fit import fit_to_float16
from converters.onnx.float16_range import clamp_masks
from converters.onnx.float16_rounding import round_to_float16
from converters.onnx.reduction_steps import write_out_reductions
from converters.onnx_to_onnx import OnnxToOnnx
from converters.onnx_to_openvino import OnnxToOpenvino
from converters.onnx_to_tensorrt import SCRIPT, OnnxToTensorrt
from converters.options import ConvertOptions
from runtimes.errors import EngineError, ProofError, RefusedError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
LOWEST = float(np.finfo(np.float32).min)
RANDOM = np.random.default_rng(3)
WIDE = RANDOM.normal(size=(8, 16)).astype(np.float32)
SAMPLES = np.random.default_rng(4).normal(size=(8, 1, 8)).astype(np.float32)


def save(path: Path, nodes, inputs, outputs, constants, opset=13) -> Path:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (*inputs, *outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values[: len(inputs)], values[len(inputs) :], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def root_mean_square(path: Path, strength: float) -> Path:
    """x·w divided by its root mean square: the squares in between grow with the square of `strength`."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["q"]),
        helper.make_node("ReduceMean", ["q"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["m"], ["s"]),
        helper.make_node("Div", ["c", "s"], ["y"]),
    ]
    return save(path, nodes, [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 16])], {"w": strength * WIDE})


def embedding(path: Path, reach: float) -> Path:
    table = np.random.default_rng(5).normal(size=(300, 16)).astype(np.float32)
    table[7] *= reach / np.abs(table[7]).max()
    nodes = [
        helper.make_node("Gather", ["emb", "ids"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    constants = {"emb": table, "w": np.random.default_rng(6).normal(size=(16, 6)).astype(np.float32)}
    return save(path, nodes, [("ids", INT64, [1, 12])], [("y", FLOAT, [1, 6])], constants)


def attention(path: Path, lowest: float) -> Path:
    """A softmax over four scores, of which the second input masks some: (1 − mask) × lowest is added."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Sub", ["one", "mask"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "lowest"], ["low"]),
        helper.make_node("Add", ["scores", "low"], ["seen"]),
        helper.make_node("Softmax", ["seen"], ["y"], axis=-1),
    ]
    constants = {"w": WIDE[:, :4], "one": np.float32(1), "lowest": np.float32(lowest)}
    return save(path, nodes, [("x", FLOAT, [1, 8]), ("mask", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], constants)


def run(path, **feeds):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def constants_of(path: Path) -> list[np.ndarray]:
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


CONVERTERS = [
    (OnnxToTensorrt(), {"release": "8.2.1"}),
    (OnnxToTensorrt(), {"release": "11.0.0"}),
    (OnnxToOpenvino(), {}),
]


def convert(converter, options, model: Path, out: Path, samples: dict, precision="fp16"):
    out.mkdir()
    known = converter.Options(precision=precision, scratch=str(out / "scratch"), **options)
    return converter.convert(model, out, known, Calibration(samples))


@pytest.mark.parametrize(("converter", "options"), CONVERTERS)
def test_a_tensor_that_overflows_is_refused_by_name_and_a_smaller_one_passes(tmp_path, converter, options):
    loud = root_mean_square(tmp_path / "loud.onnx", 300)
    with pytest.raises(RefusedError, match=r"'q' \(Mul\) reaches [1-9](\.\d)?e[5-7]; fp16 ends at 65504") as caught:
        convert(converter, options, loud, tmp_path / "a", {"x": SAMPLES})
    assert "fp32" in caught.value.hint
    # The largest square of these samples is just below the end: the same network, the same samples.
    largest = np.square(SAMPLES[:, 0] @ WIDE).max()
    near = root_mean_square(tmp_path / "near.onnx", float(np.sqrt(60_000 / largest)))
    made = convert(converter, options, near, tmp_path / "b", {"x": SAMPLES})
    model = (made.device_model or made.proxy).model
    for x in SAMPLES:
        np.testing.assert_allclose(run(model, x=x), run(near, x=x), atol=0.01)


def test_the_rounded_graph_overflows_as_a_device_does(tmp_path):
    proto = onnx.load(root_mean_square(tmp_path / "loud.onnx", 300))
    fit = fit_to_float16(tmp_path / "loud.onnx", proto, Calibration({"x": SAMPLES}))
    onnx.save(round_to_float16(fit.folded), tmp_path / "rounded.onnx")
    half = SAMPLES[0].astype(np.float16).astype(np.float32) @ (300 * WIDE).astype(np.float16).astype(np.float32)
    with np.errstate(over="ignore"):
        half = half.astype(np.float16)
        mean = np.mean(np.square(half).astype(np.float32)).astype(np.float16)
        expected = half / np.sqrt(mean)
    np.testing.assert_array_equal(run(tmp_path / "rounded.onnx", x=SAMPLES[0]), expected)
    assert not run(tmp_path / "rounded.onnx", x=SAMPLES[0]).any()  # finite values over an infinite root


@pytest.mark.parametrize(("converter", "options"), CONVERTERS)
def test_an_embedding_row_beyond_fp16_is_refused_though_no_sample_reads_it(tmp_path, converter, options):
    ids = np.full((4, 1, 12), 3, np.int64) + np.arange(4)[:, None, None] * 20
    with pytest.raises(RefusedError, match="the constant 'emb' reaches 2e5; fp16 ends at 65504"):
        convert(converter, options, embedding(tmp_path / "far.onnx", 2e5), tmp_path / "a", {"ids": ids})
    made = convert(converter, options, embedding(tmp_path / "near.onnx", 6e4), tmp_path / "b", {"ids": ids})
    assert made.model.is_file()


@pytest.mark.parametrize("lowest", [LOWEST, -1e9, -1e5])
def test_a_mask_is_clamped_in_the_shipped_graph_and_the_answers_stay_right(tmp_path, lowest):
    source = attention(tmp_path / "bert.onnx", lowest)
    mask = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[1, 0, 0, 0]], [[1, 1, 1, 1]]] * 2, np.float32)
    np.savez(tmp_path / "inputs.npz", x=SAMPLES, mask=mask)
    made = edge.convert(
        source, tmp_path / "made", device="jetson-nano", precision="fp16", calibration=tmp_path / "inputs.npz"
    )
    shipped = tmp_path / "made" / "bert.onnx"
    assert all(np.abs(values).max() <= 65504 for values in constants_of(shipped))
    assert "--fp16" in (tmp_path / "made" / SCRIPT).read_text()
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert manifest["conversion"]["float16"] == {"clamped": {"lowest": [pytest.approx(lowest, rel=1e-5), -32752.0]}}
    assert any("'lowest'" in note and "clamped" in note for note in made.notes)
    for x, hidden in zip(SAMPLES, mask, strict=True):
        given = run(shipped, x=x, mask=hidden)
        np.testing.assert_allclose(given, run(source, x=x, mask=hidden), atol=1e-5)
        assert not given[hidden == 0].any()


def test_a_mask_that_hides_everything_stays_finite(tmp_path):
    """Two masks of half of the range add up within it: no row becomes minus infinity, which softmax turns into NaN."""
    source = attention(tmp_path / "bert.onnx", LOWEST)
    samples = Calibration({"x": SAMPLES[:1], "mask": np.zeros((1, 1, 4), np.float32)})
    fit = fit_to_float16(source, onnx.load(source), samples)
    assert fit.beyond == ()
    onnx.save(round_to_float16(fit.folded), tmp_path / "rounded.onnx")
    given = run(tmp_path / "rounded.onnx", x=SAMPLES[0], mask=np.zeros((1, 4), np.float32))
    assert np.isfinite(given).all()


def test_bounds_end_at_the_end_of_the_range_and_weights_are_left_alone(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("Clip", ["c", "low", "high"], ["clipped"]),
        helper.make_node("Where", ["hidden", "minus", "clipped"], ["y"]),
    ]
    weights = WIDE.copy()
    weights[0, 0] = -7e4
    constants = {
        "w": weights,
        "low": np.float32(LOWEST),
        "high": np.float32(-LOWEST),
        "hidden": np.array([True] + [False] * 15),
        "minus": np.float32(-np.inf),
    }
    path = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 16])], constants)
    proto = onnx.load(path)
    clamped = {one.name: one.written for one in clamp_masks(proto)}
    assert clamped == {"low": -65504.0, "high": 65504.0}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    np.testing.assert_array_equal(values["w"], weights)
    assert values["minus"] == -np.inf


def test_a_batch_norm_behind_a_large_convolution_is_folded_before_it_is_compared_with_the_range(tmp_path):
    """Builders fold it, so that the convolution's own output is never stored."""
    weight = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32) * 1e5
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"]),
    ]
    constants = {"w": weight, "s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    constants |= {"m": np.zeros(4, np.float32), "v": np.full(4, 1e10, np.float32)}
    ends = [("x", FLOAT, [1, 3, 8, 8])], [("y", FLOAT, [1, 4, 6, 6])]
    proto = onnx.load(save(tmp_path / "m.onnx", nodes, *ends, constants))
    samples = Calibration({"x": np.random.default_rng(2).normal(size=(2, 1, 3, 8, 8)).astype(np.float32)})
    assert fit_to_float16(tmp_path / "m.onnx", proto, samples).beyond == ()


def test_an_input_beyond_fp16_is_named(tmp_path):
    model = root_mean_square(tmp_path / "m.onnx", 1e-6)
    with pytest.raises(RefusedError, match="the input 'x' reaches"):
        convert(OnnxToTensorrt(), {"release": "8.2.1"}, model, tmp_path / "out", {"x": SAMPLES * 1e5})
    (tmp_path / "onnx").mkdir()
    samples = Calibration({"x": SAMPLES * 1e5})
    with pytest.raises(EngineError, match="the input 'x' reaches"):
        OnnxToOnnx().convert(model, tmp_path / "onnx", ConvertOptions(precision="fp16"), samples)


def test_int8_keeps_layers_that_overflow_out_of_fp16(tmp_path):
    loud, quiet = root_mean_square(tmp_path / "loud.onnx", 300), root_mean_square(tmp_path / "quiet.onnx", 1)
    nano = {"release": "8.2.1"}
    made = convert(OnnxToTensorrt(), nano, loud, tmp_path / "a", {"x": SAMPLES}, "int8")
    assert "--int8" in (tmp_path / "a" / SCRIPT).read_text()
    assert "--fp16" not in (tmp_path / "a" / SCRIPT).read_text()
    assert made.facts["tensorrt"]["float"] == "fp32"
    assert any("'q' (Mul)" in note for note in made.notes)
    made = convert(OnnxToTensorrt(), nano, quiet, tmp_path / "b", {"x": SAMPLES}, "int8")
    assert "--int8 --fp16" in (tmp_path / "b" / SCRIPT).read_text()
    assert "float" not in made.facts["tensorrt"]


def test_the_proof_rounds_what_the_device_rounds(tmp_path):
    """A difference of large numbers, within the range: right in float32, lost where they are stored in fp16."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "far"], ["moved"]),
        helper.make_node("Sub", ["moved", "far"], ["y"]),
    ]
    constants = {"w": WIDE, "far": np.full(16, 60_000, np.float32)}
    model = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 16])], constants)
    for options in ({"device": "jetson-nano"}, {"format": "openvino"}, {"format": "onnx"}):
        with pytest.raises(ProofError, match="output 'y'"):
            edge.convert(model, tmp_path / "out", precision="fp16", **options)


def test_an_epsilon_that_fp16_rounds_to_zero_becomes_its_smallest_number(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["power"]),
        helper.make_node("Add", ["power", "epsilon"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["y"]),
    ]
    ends = [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 8])]
    source = save(tmp_path / "log.onnx", nodes, *ends, {"epsilon": np.float32(1e-10)})
    silence = np.zeros((1, 1, 8), np.float32)
    fit = fit_to_float16(source, onnx.load(source), Calibration({"x": silence}))
    assert [(one.name, one.written) for one in fit.clamped] == [("epsilon", 2.0**-24)]
    onnx.save(round_to_float16(fit.folded), tmp_path / "rounded.onnx")
    np.testing.assert_allclose(run(tmp_path / "rounded.onnx", x=silence[0]), np.log(2.0**-24), rtol=1e-3)


REDUCTIONS = ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def test_a_failed_proof_names_the_constant_that_fp16_cannot_hold(tmp_path):
    """The logarithm of powers far below the epsilon of fp16, as of a spectrum."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("Mul", ["squares", "small"], ["powers"]),
        helper.make_node("Add", ["powers", "epsilon"], ["sum"]),
        helper.make_node("Log", ["sum"], ["y"]),
    ]
    constants = {"small": np.float32(1e-7), "epsilon": np.float32(1e-10)}
    model = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [1, 64])], [("y", FLOAT, [1, 64])], constants)
    with pytest.raises(ProofError, match="too far from the source's") as caught:
        edge.convert(model, tmp_path / "made", format="onnx", precision="fp16")
    assert "clamped in the graph to what fp16 holds: 'epsilon' 1e-10 → 5.96046e-08" in caught.value.hint


def reduction(path: Path, operator: str, opset: int, strength: float = 1.0) -> Path:
    """An operator over |x·w|, divided by `strength`."""
    axes = {} if opset >= 18 else {"axes": [1]}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("Abs", ["c"], ["a"]),
        helper.make_node(operator, ["a", "axes"] if opset >= 18 else ["a"], ["n"], keepdims=1, **axes),
        helper.make_node("Mul", ["n", "k"], ["y"]),
    ]
    constants = {"w": strength * WIDE, "k": np.float32(1 / strength)} | ({"axes": [1]} if opset >= 18 else {})
    return save(path, nodes, [("x", FLOAT, [1, 8])], [("y", FLOAT, [1, 1])], constants, opset)


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("operator", REDUCTIONS)
def test_the_steps_of_a_reduction_compute_the_same(tmp_path, operator, opset):
    proto = onnx.load(reduction(tmp_path / "model.onnx", operator, opset))
    inside = write_out_reductions(proto)
    assert set(inside.values()) == {("n", operator)}
    assert not {node.op_type for node in proto.graph.node} & set(REDUCTIONS)
    onnx.checker.check_model(proto)
    whole, written = (
        ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": SAMPLES[0]})[0]
        for model in ((tmp_path / "model.onnx").read_bytes(), proto.SerializeToString())
    )
    np.testing.assert_allclose(written, whole, rtol=1e-5)


def test_squares_inside_a_norm_overflow_where_the_device_stores_them(tmp_path):
    model = reduction(tmp_path / "model.onnx", "ReduceL2", 13, strength=300.0)
    samples = Calibration({"x": SAMPLES})
    fit = fit_to_float16(model, onnx.load(model), samples)
    assert [(one.name, one.kind) for one in fit.beyond] == [("n", "ReduceL2")]
    assert not fit_to_float16(model, onnx.load(model), samples, sums_in_float32=True).beyond
    small = reduction(tmp_path / "small.onnx", "ReduceL2", 13)
    assert not fit_to_float16(small, onnx.load(small), samples).beyond
    with pytest.raises(RefusedError, match=r"'n' \(ReduceL2\) reaches"):
        convert(OnnxToTensorrt(), {"release": "8.2.1"}, model, tmp_path / "out", {"x": SAMPLES})
