"""Keras to TFLite: recurrent layers in int8, states, and the names of inputs and outputs, compared with Keras."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.keras_to_tflite import KerasToTflite
from converters.options import ConvertOptions
from converters.savedmodel_to_tflite import SavedmodelToTflite
from converters.tensorflow import recurrent
from runtimes.errors import UsageError

keras = pytest.importorskip("keras")
tensorflow = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def save(model, folder):
    model.save(folder / "model.keras")
    return folder / "model.keras"


def export(model, folder):
    """Write a SavedModel with the batch of the model, which a stateful layer needs."""
    signature = [tensorflow.TensorSpec(one.shape, one.dtype, name=one.name) for one in model.inputs]
    model.export(folder, verbose=False, input_signature=signature)


def convert(path, out, samples=None, step=KerasToTflite, **options):
    return step().convert(path, out, ConvertOptions(**options), samples and Calibration(samples)).model


def run(path, samples):
    """Run `samples` [n, ...] one after another in one interpreter; returns the first output, as real numbers."""
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()[0]
    rows = []
    for sample in samples:
        interpreter.set_tensor(taken["index"], sample)
        interpreter.invoke()
        scale, zero = given["quantization"]
        value = interpreter.get_tensor(given["index"]).astype(np.float32)
        rows.append((value - zero) * scale if scale else value)
    return np.stack(rows)


def snr_db(expected, actual):
    return 10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum())


def test_a_bidirectional_and_a_nested_recurrent_layer_become_int8(tmp_path):
    keras.utils.set_random_seed(1)
    inner = keras.Sequential([keras.Input((6, 4)), layers.GRU(5, return_sequences=True)])
    model = keras.Sequential([keras.Input((6, 4), name="x"), inner, layers.Bidirectional(layers.LSTM(4))])
    samples = np.random.default_rng(2).normal(size=(40, 1, 6, 4)).astype(np.float32)
    path = convert(save(model, tmp_path), tmp_path, {"x": samples}, precision="int8", io_dtype="float32")
    expected = np.stack([np.asarray(model(sample)) for sample in samples])
    assert snr_db(expected, run(path, samples)) > 20
    names = {one["op_name"] for one in litert.Interpreter(str(path))._get_ops_details()}
    assert "WHILE" not in names


def test_the_sequence_that_is_too_long_for_int8_is_refused_by_its_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent, "MAX_UNROLLED_STEPS", 5)
    path = save(keras.Sequential([keras.Input((6, 4)), layers.LSTM(3, name="memory")]), tmp_path)
    samples = {"x": np.zeros((2, 1, 6, 4), np.float32)}
    with pytest.raises(UsageError, match="layer 'memory' runs over 6 steps") as raised:
        convert(path, tmp_path, samples, precision="int8")
    assert "w8" in str(raised.value.hint)


def test_a_loop_of_a_savedmodel_is_refused_before_the_converter_crashes_on_it(tmp_path):
    model = keras.Sequential([keras.Input((6, 4), name="x"), layers.LSTM(3)])
    model.export(tmp_path / "saved", verbose=False)
    samples = {"x": np.zeros((2, 1, 6, 4), np.float32)}
    with pytest.raises(UsageError, match="loops over its input") as raised:
        convert(tmp_path / "saved", tmp_path, samples, SavedmodelToTflite, precision="int8")
    assert "w8" in str(raised.value.hint)


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_a_stateful_layer_keeps_its_state_over_the_steps(tmp_path, precision):
    model = keras.Sequential([keras.Input(batch_shape=(1, 5, 6)), layers.LSTM(8, stateful=True, name="memory")])
    samples = np.random.default_rng(3).normal(size=(6, 1, 5, 6)).astype(np.float32)
    model(samples[0])  # what is saved now is not the state of the beginning
    path = convert(save(model, tmp_path), tmp_path, precision=precision)
    model.layers[0].reset_state()
    expected = np.stack([np.asarray(model(sample)) for sample in samples])
    actual = run(path, samples)
    assert np.abs(actual - expected).max() < (1e-5 if precision == "fp32" else 0.02)
    alone = np.stack([run(path, samples[i : i + 1])[0] for i in range(6)])
    assert np.abs(alone - expected)[1:].max() > 0.05  # the test would see a state that is lost


def test_a_stateful_savedmodel_keeps_its_state_over_the_steps(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(1, 5, 6)), layers.LSTM(8, stateful=True, name="memory")])
    samples = np.random.default_rng(3).normal(size=(6, 1, 5, 6)).astype(np.float32)
    export(model, tmp_path / "saved")
    path = convert(tmp_path / "saved", tmp_path, step=SavedmodelToTflite)
    expected = np.stack([np.asarray(model(sample)) for sample in samples])
    assert np.abs(run(path, samples) - expected).max() < 1e-5


def test_a_state_is_refused_by_its_layer_where_the_target_has_none(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(1, 5, 6)), layers.LSTM(8, stateful=True, name="memory")])
    samples = {"x": np.zeros((2, 1, 5, 6), np.float32)}
    with pytest.raises(UsageError, match="layer 'memory' keeps its state"):
        convert(save(model, tmp_path), tmp_path, samples, precision="int8")


@pytest.fixture
def named_network():
    """A network with two inputs and three outputs whose names are not in the order of the alphabet."""
    keras.utils.set_random_seed(4)
    right, left = keras.Input((4,), name="right"), keras.Input((4,), name="left")
    both = layers.Subtract()([right, left])
    outputs = [layers.Dense(3, name=name)(both) for name in ("zz", "aa", "mm")]
    return keras.Model([right, left], outputs)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_inputs_and_outputs_keep_their_names(tmp_path, named_network, precision):
    values = np.random.default_rng(5).normal(size=(2, 30, 1, 4)).astype(np.float32)
    samples = {"right": values[0], "left": values[1]}
    path = convert(save(named_network, tmp_path), tmp_path, samples, precision=precision, io_dtype="float32")
    interpreter = litert.Interpreter(str(path))
    assert [one["name"] for one in interpreter.get_input_details()] == ["right", "left"]
    assert [one["name"] for one in interpreter.get_output_details()] == ["zz", "aa", "mm"]
    actual = interpreter.get_signature_runner()(right=values[0, 0], left=values[1, 0])
    for name, expected in zip(("zz", "aa", "mm"), named_network([values[0, 0], values[1, 0]]), strict=True):
        assert np.abs(actual[name] - np.asarray(expected)).max() < (1e-5 if precision == "fp32" else 0.1), name


def test_a_layer_that_computes_an_output_is_kept_in_float_by_its_name(tmp_path, named_network):
    values = np.random.default_rng(5).normal(size=(2, 30, 1, 4)).astype(np.float32)
    samples = {"right": values[0], "left": values[1]}
    path = convert(save(named_network, tmp_path), tmp_path, samples, precision="int8", keep=("aa",))
    operators = [one["op_name"] for one in litert.Interpreter(str(path))._get_ops_details()]
    assert "DEQUANTIZE" in operators
    whole = convert(save(named_network, tmp_path), tmp_path, samples, precision="int8")
    assert "DEQUANTIZE" not in [one["op_name"] for one in litert.Interpreter(str(whole))._get_ops_details()]


def test_a_dictionary_of_outputs_is_named_by_its_keys(tmp_path):
    inputs = keras.Input((4,), name="x")
    outputs = {"second": layers.Dense(2)(inputs), "first": layers.Dense(3)(inputs)}
    model = keras.Model({"x": inputs}, outputs)
    path = convert(save(model, tmp_path), tmp_path)
    values = np.float32([[1, -2, 3, 0.5]])
    actual = litert.Interpreter(str(path)).get_signature_runner()(x=values)
    expected = model({"x": values})
    assert set(actual) == {"first", "second"}
    for name, value in actual.items():
        np.testing.assert_allclose(value, np.asarray(expected[name]), atol=1e-6)


@pytest.mark.parametrize(
    "recurrent_layers",
    [
        [layers.Masking(0.0), layers.GRU(5)],
        [layers.Masking(0.0), layers.Bidirectional(layers.LSTM(3))],
        [layers.RNN([layers.LSTMCell(5), layers.GRUCell(4)])],
        [layers.SimpleRNN(4, return_sequences=True), layers.GRU(3)],
    ],
)
def test_masks_and_several_cells_of_a_recurrent_layer_become_loops(tmp_path, recurrent_layers):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6, 4), name="x"), *recurrent_layers, layers.Dense(2)])
    samples = np.random.default_rng(3).normal(size=(4, 1, 6, 4)).astype(np.float32)
    samples[1, :, 3:] = 0  # what a mask leaves out
    expected = np.stack([np.asarray(model(sample)) for sample in samples])
    np.testing.assert_allclose(run(convert(save(model, tmp_path), tmp_path), samples), expected, atol=1e-5)


def test_an_argmax_of_keras_becomes_one_operator(tmp_path):
    """Keras 3 adds a comparison of the signs of zeros, by bits."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6, 6, 3), name="x")
    model = keras.Model(inputs, keras.ops.argmax(layers.Conv2D(5, 3)(inputs), axis=-1))
    samples = np.random.default_rng(5).normal(size=(3, 1, 6, 6, 3)).astype(np.float32)
    expected = np.stack([np.asarray(model(sample)) for sample in samples])
    np.testing.assert_array_equal(run(convert(save(model, tmp_path), tmp_path), samples), expected)
