"""Operators that come out wrong of TensorFlow's TFLite converter: `constant - x` beside a Transpose, bytes compared."""

from __future__ import annotations

import numpy as np
import pytest

from converters.keras_to_tflite import KerasToTflite
from converters.onnx_to_tflite import OnnxToTflite
from converters.options import ConvertOptions
from converters.tensorflow.op_rewrites import freeze

tf = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")
keras = pytest.importorskip("keras")

_SHAPE = (2, 3, 4)
_FULL = np.random.default_rng(1).uniform(1, 2, (2, 4, 3)).astype(np.float32)  # the shape of the transposed input
_ONE = np.float32([[[3]]])
TURNED = {
    "scalar - x": lambda x: 1 - x,
    "element - x": lambda x: _ONE - x,
    "constant - x": lambda x: _FULL - x,
    "row - x": lambda x: _FULL[:1] - x,
    "-x + scalar": lambda x: -x + 1,
    "constant + -x": lambda x: _FULL + -x,
    "scalar / x": lambda x: 2 / x,
    "constant / x": lambda x: _FULL / x,
    "1 / x * 3": lambda x: tf.math.reciprocal(x) * 3,
    "1 / (1 + exp(x))": lambda x: 1 / (1 + tf.exp(x)),
}
KEPT = {
    "vector - x": lambda x: _FULL[0, 0] - x,
    "x - scalar": lambda x: x - 1,
    "x / scalar": lambda x: x / 3,
    "x - x": lambda x: x * x - x,
    "scalar - mean": lambda x: 1 - tf.reduce_mean(x),
}


def _function(compute, dtype=np.float32):
    """A concrete function of one input, computed from its transposed values."""

    @tf.function(input_signature=[tf.TensorSpec(_SHAPE, dtype, name="x")])
    def forward(x):
        return compute(tf.transpose(x, (0, 2, 1)))

    return forward.get_concrete_function()


def _run(content, *inputs):
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for port, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(port["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _differs(function, frozen, dtype=np.float32):
    """Return the largest difference between the converted function and what it computes."""
    x = np.random.default_rng(0).uniform(1, 9, _SHAPE).astype(dtype)
    content = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    expected = np.asarray(tf.nest.flatten(function(tf.constant(x)))[0])
    return np.abs(_run(content, x) - expected).max()


@pytest.mark.parametrize("name", [*TURNED, *KEPT])
def test_the_operands_keep_their_order(name):
    function = _function({**TURNED, **KEPT}[name])
    assert _differs(function, freeze(function)) < 1e-5


@pytest.mark.parametrize("name", list(TURNED))
def test_the_converter_still_turns_them_around_by_itself(name):
    """When this fails, TensorFlow is mended, and the rewriting is not needed anymore."""
    function = _function(TURNED[name])
    assert _differs(function, function) > 0.1


def test_a_variable_counts_as_a_constant():
    variable = tf.Variable(_FULL)
    function = _function(lambda x: variable - x)
    assert _differs(function, freeze(function)) < 1e-5


def test_whole_numbers_are_subtracted_too():
    function = _function(lambda x: 100 - x, np.int32)
    assert _differs(function, freeze(function), np.int32) == 0


def test_whole_numbers_are_divided_too():
    rows = np.int32([[[100, 200, 300]]])
    function = _function(lambda x: tf.truncatediv(rows, x), np.int32)
    assert _differs(function, function, np.int32) > 0
    assert _differs(function, freeze(function), np.int32) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes_are_compared_as_whole_numbers(dtype):
    """LiteRT ends the process for `equal` of bytes without a scale, so the original is not run here."""
    function = _function(lambda x: tf.cast(x < 5, tf.float32) + tf.cast(x == dtype(3), tf.float32), dtype)
    assert _differs(function, freeze(function), dtype) == 0


def test_operators_that_cannot_be_turned_around_stay_as_they_are():
    for compute in KEPT.values():
        plain = _function(compute)
        before = sorted(node.op for node in plain.graph.as_graph_def().node)
        assert sorted(node.op for node in freeze(plain).graph.as_graph_def().node) == before


def test_a_keras_model_of_permuted_values_becomes_tflite(tmp_path):
    inputs = keras.Input(_SHAPE[1:], name="x")
    model = keras.Model(inputs, 1 - keras.layers.Permute((2, 1))(inputs))
    model.save(tmp_path / "model.keras")
    path = KerasToTflite().convert(tmp_path / "model.keras", tmp_path, ConvertOptions(), None).model
    x = np.random.default_rng(0).normal(size=(1, *_SHAPE[1:])).astype(np.float32)
    np.testing.assert_array_equal(_run(path.read_bytes(), x), 1 - x.transpose(0, 2, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("op", "expected"), [("Reciprocal", lambda x: 1 / x), ("Sub", lambda x: 2 - x)])
def test_onnx_files_that_invert_or_subtract_become_tflite(tmp_path, op, expected):
    """onnx2tf transposes inputs, so that there is a Transpose in every such model."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    node = helper.make_node(op, ["two", "x"] if op == "Sub" else ["x"], ["y"])
    ports = [helper.make_tensor_value_info(name, 1, [1, *_SHAPE]) for name in "xy"]
    two = onnx.numpy_helper.from_array(np.float32(2), "two")
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [two])
    source = tmp_path / "source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), source)
    (tmp_path / "out").mkdir()
    path = OnnxToTflite().convert(source, tmp_path / "out", ConvertOptions(), None).model
    x = np.random.default_rng(0).uniform(1, 9, (1, *_SHAPE)).astype(np.float32)
    answer = _run(path.read_bytes(), np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(answer.transpose(0, 3, 1, 2), expected(x), rtol=1e-6)
