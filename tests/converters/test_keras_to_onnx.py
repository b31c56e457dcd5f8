"""Keras to ONNX: the constants of a normalization, grouped convolutions and the exact GELU."""

from __future__ import annotations

import numpy as np
import pytest

from converters.keras_to_onnx import KerasToOnnx
from converters.options import ConvertOptions

keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


def test_the_constants_of_a_normalization_are_no_inputs(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0])]
    )
    model.save(tmp_path / "norm.keras")
    path = KerasToOnnx().convert(tmp_path / "norm.keras", tmp_path, ConvertOptions(), None).model
    assert len(onnx.load(path).graph.input) == 1
    values = np.float32([[5.0, 5.0, 7.0]])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: values})[0], [[2.0, 1.0, 1.0]])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
def test_a_grouped_convolution_that_keras_leaves_to_xla_is_a_plain_one(tmp_path):
    layers = [keras.layers.Conv2D(8, 3, groups=2, padding="same"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 6)), *layers])
    model.save(tmp_path / "grouped.keras")
    path = KerasToOnnx().convert(tmp_path / "grouped.keras", tmp_path, ConvertOptions(), None).model
    groups = [entry.i for node in onnx.load(path).graph.node for entry in node.attribute if entry.name == "group"]
    assert groups == [2]
    values = np.random.default_rng(0).normal(size=(1, 8, 8, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: values})[0]
    np.testing.assert_allclose(answer, np.asarray(model(values)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
def test_the_exact_gelu_is_written_in_operators_that_onnx_has(tmp_path):
    model = keras.Sequential([keras.Input((9,)), keras.layers.Activation("gelu")])
    model.save(tmp_path / "gelu.keras")
    path = KerasToOnnx().convert(tmp_path / "gelu.keras", tmp_path, ConvertOptions(), None).model
    values = np.linspace(-4, 4, 9, dtype=np.float32)[None]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: values})[0]
    np.testing.assert_allclose(answer, np.asarray(model(values)), atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
@pytest.mark.parametrize(("before", "after"), [((10, 10), (7, 5)), ((9, 12), (13, 12)), ((30, 49), (23, 48))])
def test_a_resized_picture_has_all_rows(tmp_path, before, after):
    """7 / 10 in float32 is less, so that tf2onnx' factor leaves 6 of 7 rows."""
    inputs = keras.Input((*before, 3))
    keras.Model(inputs, keras.layers.Resizing(*after)(inputs)).save(tmp_path / "resized.keras")
    path = KerasToOnnx().convert(tmp_path / "resized.keras", tmp_path, ConvertOptions(), None).model
    values = np.random.default_rng(0).normal(size=(1, *before, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: values})[0]
    np.testing.assert_allclose(answer, np.asarray(keras.layers.Resizing(*after)(values)), atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
def test_an_argmax_of_keras_answers_the_same(tmp_path):
    inputs = keras.Input((4, 5))
    keras.Model(inputs, keras.ops.argmax(inputs, axis=-1)).save(tmp_path / "argmax.keras")
    path = KerasToOnnx().convert(tmp_path / "argmax.keras", tmp_path, ConvertOptions(), None).model
    values = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: values})[0], values.argmax(-1))
