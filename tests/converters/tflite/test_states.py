"""The variables of a TFLite file become inputs and outputs, which LiteRT answers alike."""

from __future__ import annotations

import numpy as np
import pytest

import edge
from converters.keras_to_tflite import KerasToTflite
from converters.options import ConvertOptions
from converters.tflite.reader import read_tflite
from converters.tflite.states import with_explicit_states
from converters.tflite.writer import read_network, serialize, write_inline
from runtimes.engine_support.tflite import has_variables
from runtimes.errors import EngineError

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
STEPS = np.random.default_rng(3).normal(size=(6, 1, 5, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file that keeps the states of an LSTM in variables; the hidden state is its output, too."""
    folder = tmp_path_factory.mktemp("source")
    memory = keras.layers.LSTM(8, stateful=True, name="memory")
    keras.Sequential([keras.Input(batch_shape=(1, 5, 6), name="x"), memory]).save(folder / "model.keras")
    return KerasToTflite().convert(folder / "model.keras", folder, ConvertOptions(), None).model


def opened(path):
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter


def indices(details):
    return {one["name"]: one["index"] for one in details}


def answers(path, states, passes_on=True):
    """Return the first output of each step; states that are inputs are passed on, or stay zero."""
    interpreter = opened(path)
    inputs, outputs = indices(interpreter.get_input_details()), indices(interpreter.get_output_details())
    taken, given = next(iter(inputs.values())), next(iter(outputs.values()))
    rows, held = [], {name: np.zeros_like(interpreter.get_tensor(inputs[name])) for name in states}
    for step in STEPS:
        interpreter.set_tensor(taken, step)
        for name, value in held.items():
            interpreter.set_tensor(inputs[name], value)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given))
        if passes_on:
            held = {name: interpreter.get_tensor(outputs[output]) for name, output in states.items()}
    return np.stack(rows)


def test_the_states_of_an_lstm_are_inputs_and_outputs(source, tmp_path):
    path, states = with_explicit_states(source, ConvertOptions(scratch=str(tmp_path)))
    assert len(states) == 2
    np.testing.assert_allclose(answers(path, states), answers(source, {}), atol=1e-6)
    forgetful = answers(path, states, passes_on=False)
    assert np.abs(forgetful - answers(source, {})).max() > 0.01  # what a lost state would answer


def test_a_bare_file_answers_from_its_first_step_on(source, tmp_path):
    expected, indexed = answers(source, {}), indices(opened(source).get_input_details())
    np.savez(tmp_path / "steps.npz", **dict.fromkeys(indexed, STEPS))
    with edge.open(source) as model:
        found = [next(iter(model.run(dict.fromkeys(indexed, step)).values())) for step in STEPS]
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-6)
    with edge.open(source) as model:
        results = [one.result.arrays for one in model.predictions([tmp_path / "steps.npz"])]
    np.testing.assert_allclose(np.stack([next(iter(one.values())) for one in results]), expected, atol=1e-6)


@pytest.mark.data
def test_variables_are_found_by_boards_as_by_converters(data):
    found = {path.name: has_variables(path) for path in data.rglob("*.tflite")}
    assert found == {path.name: _has_variables(path) for path in data.rglob("*.tflite")}
    assert {name for name, keeps in found.items() if keeps} >= {"okay_nabu.tflite", "keras_lstm_mnist_ptq.tflite"}


def _has_variables(path):
    graphs = read_tflite(path).graphs
    tensors = [tensor for graph in graphs for tensor in graph.tensors]
    return any(one.is_variable or one.spec.dtype == "resource" for one in tensors)


def test_a_file_without_variables_is_the_same_file(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "dense.keras")
    path = KerasToTflite().convert(tmp_path / "dense.keras", tmp_path, ConvertOptions(), None).model
    assert with_explicit_states(path, ConvertOptions(scratch=str(tmp_path))) == (path, {})


def test_a_state_that_begins_with_other_values_is_refused_by_its_name(source, tmp_path):
    network = read_network(write_inline(source, tmp_path / "model.tflite"))
    for graph in network.subgraphs[1:]:
        for tensor in graph.tensors:
            if network.buffers[tensor.buffer].data is not None and list(tensor.shape) == [1, 8]:
                network.buffers[tensor.buffer].data = np.frombuffer(np.ones(8, np.float32).tobytes(), np.uint8)
    (tmp_path / "model.tflite").write_bytes(serialize(network))
    with pytest.raises(EngineError, match="does not begin at zero") as raised:
        with_explicit_states(tmp_path / "model.tflite", ConvertOptions(scratch=str(tmp_path)))
    assert "model.tflite keeps a state" in raised.value.message
