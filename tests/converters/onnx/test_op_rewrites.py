"""Operators that a release of TensorRT lacks are replaced, and opsets lowered, without changing the answers."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx.op_rewrites import rewrite
from converters.onnx.opset_downgrade import OpsetDowngradeError, lower_opset
from converters.options import ConvertOptions
from converters.tensorrt.compatibility import REWRITTEN, TensorrtTarget, check_tensorrt, is_rewritten
from converters.tensorrt.releases import Release
from runtimes.errors import RefusedError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
X = np.random.default_rng(0).normal(1, 3, (2, 4, 5, 5)).astype(np.float32)
FIVE, FOUR, TWO = "float[5] {1.0,2.0,3.0,0.5,0.1}", "float[4] {1.0,2.0,3.0,0.5}", "float[2] {1.5,-2.0}"
EVERY = {
    "CastLike": (19, "y = CastLike(x, s)", FIVE),
    "Gelu": (20, "y = Gelu(x)", FIVE),
    "GroupNormalization": (21, "y = GroupNormalization<num_groups=2>(x, s, s)", FOUR),
    "HardSwish": (14, "y = HardSwish(x)", FIVE),
    "LayerNormalization": (17, "y = LayerNormalization(x, s, s)", FIVE),
    "MeanVarianceNormalization": (13, "y = MeanVarianceNormalization(x)", FIVE),
    "Mish": (18, "y = Mish(x)", FIVE),
    "Reciprocal": (13, "y = Reciprocal(x)", FIVE),
    "Swish": (24, "y = Swish(x)", FIVE),
}
OTHERS = {
    "Gelu by tanh": (20, 'y = Gelu<approximate="tanh">(x)', FIVE),
    "GroupNormalization by groups": (18, "y = GroupNormalization<num_groups=2>(x, s, s)", TWO),
    "HardSwish of opset 22": (22, "y = HardSwish(x)", FIVE),
    "MeanVarianceNormalization of each picture": (13, "y = MeanVarianceNormalization<axes=[2, 3]>(x)", FIVE),
    "LayerNormalization from opset 18": (18, "y = LayerNormalization<epsilon=0.01>(x, s)", FIVE),
    "LayerNormalization over two axes": (
        17,
        "y = LayerNormalization<axis=-2>(x, s)",
        "float[2,2] {1.0,2.0,3.0,4.0}",
    ),
}


def model_of(opset: int, node: str, constant: str = FIVE, shape: str = "2,4,5,5"):
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[{shape}] x) => (float[{shape}] y) '
    return onnx.parser.parse_model(f"{text} {{ s = Constant<value={constant}>() {node} }}")


def answer(model, values: np.ndarray = X) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def ops(model) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_every_operator_that_is_written_otherwise_is_tested():
    assert set(EVERY) == set(REWRITTEN)


@pytest.mark.parametrize("case", [*EVERY.values(), *OTHERS.values()], ids=[*EVERY, *OTHERS])
def test_an_operator_in_others_computes_the_same(case):
    opset, node, constant = case
    shape, values = ("4,2,2", X.reshape(-1)[:16].reshape(4, 2, 2)) if "2,2" in constant else ("2,4,5,5", X)
    model = model_of(opset, node, constant, shape)
    found = rewrite(model, lambda op: is_rewritten(op, (8, 2)))
    assert not ops(found) & set(REWRITTEN)
    np.testing.assert_allclose(answer(found, values), answer(model, values), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", EVERY)
def test_the_oldest_board_gets_each_of_them_at_its_opset(name, tmp_path):
    from converters.onnx_to_tensorrt import OnnxToTensorrt

    opset, node, constant = EVERY[name]
    model = model_of(opset, f"a = Add(x, x) {node.replace('x', 'a')}", constant)
    path, out = tmp_path / "m.onnx", tmp_path / "out"
    out.mkdir()
    onnx.save(model, path)
    made = onnx.load(OnnxToTensorrt().convert(path, out, ConvertOptions(release="8.2.1"), None).model)
    assert made.opset_import[0].version == 13
    assert check_tensorrt(out / "m.onnx", TensorrtTarget(release=(8, 2), max_opset=13, rewrites=False)).faults == []
    np.testing.assert_allclose(answer(made), answer(model), rtol=2e-5, atol=2e-6)


def test_layer_normalization_keeps_its_digits_far_from_zero():
    """Where E[x²] − E[x]², as in ONNX's own formula, has none left."""
    model = model_of(17, "y = LayerNormalization(x, s, s)")
    found = rewrite(model, lambda op: op == "LayerNormalization")
    np.testing.assert_allclose(answer(found, X + 1024), answer(model, X + 1024), atol=0.01)


def test_a_node_that_says_more_than_can_be_written_stays_and_is_refused(tmp_path):
    from converters.tensorrt.graph_preparation import fix_shapes, refuse_unsupported, write

    model = model_of(17, "y, mean = LayerNormalization(x, s)")
    onnx.save(model, tmp_path / "m.onnx")
    release = Release.read("8.2.1")
    with pytest.raises(RefusedError, match="LayerNormalization"):
        refuse_unsupported(write(fix_shapes(tmp_path / "m.onnx", release, None, 1), tmp_path / "n.onnx"), release, True)


@pytest.mark.parametrize(
    "node",
    [
        "y = Mul(x, s)",
        "axes = Constant<value=int64[1] {2}>() m = ReduceMean<keepdims=1>(x, axes) y = Sub(x, m)",
        "n = Shape(x) y = Reshape<allowzero=0>(x, n)",
        "y = LeakyRelu<alpha=0.1>(x)",
    ],
)
@pytest.mark.parametrize("opset", [20, 18])
def test_a_graph_goes_down_without_a_difference(node, opset):
    model = model_of(opset, node)
    found = lower_opset(model, 13)
    assert found.opset_import[0].version == 13
    assert np.array_equal(answer(found), answer(model))
    assert model.opset_import[0].version == opset


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("y = Gelu(x)", "Gelu 'y' is newer than opset 13"),
        ("n = Shape(x) y = Reshape<allowzero=1>(x, n)", "Reshape 'y' uses allowzero, which the older opset lacks"),
        ("r = Shape<start=3>(x) z = Sub(r, r) m = ReduceMean(x, z) y = Sub(x, m)", "Shape 'r' uses start,"),
        ("k = CastLike(s, s) y = Mul(x, k)", "CastLike 'k' is newer"),
    ],
)
def test_what_an_older_opset_cannot_say_is_named(node, words):
    with pytest.raises(OpsetDowngradeError, match=words):
        lower_opset(model_of(20, node), 13)
