"""What a source keeps in variables becomes inputs and outputs in ONNX and OpenVINO, proven over a sequence."""

from __future__ import annotations

import numpy as np
import pytest

import edge
from converters.options import ConvertOptions
from converters.pipeline import convert as pipeline
from converters.pipeline.request import ConvertRequest
from converters.tensorflow import models
from converters.tflite import states
from edge.conversion.datasets import ConversionInputs
from runtimes.artifact import Artifact
from runtimes.errors import ProofError
from runtimes.registry import open_session
from tests.breadth.real_inputs import MODELS

tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
keras = pytest.importorskip("keras", reason="Keras is not installed")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
STEPS = np.random.default_rng(3).normal(size=(12, 1, 5, 6)).astype(np.float32)
LIMITS = {"fp32": 1e-5, "fp16": 5e-3}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A network with states in two layers, one of them inside a wrapper, and what it answers step by step."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input(batch_shape=(1, 5, 6), name="x"),
            layers.Bidirectional(layers.GRU(4, stateful=True, return_sequences=True)),
            layers.LSTM(8, stateful=True, name="memory"),
            layers.Dense(2),
        ]
    )
    folder = tmp_path_factory.mktemp("source")
    network.save(folder / "model.keras")
    np.savez(folder / "steps.npz", x=STEPS)
    return folder / "model.keras", np.stack([np.asarray(network(step)) for step in STEPS])


def convert(source, folder, target, precision="fp32"):
    inputs = ConversionInputs(calibration=source.with_name("steps.npz"))
    edge.convert(source, folder, format=target, precision=precision, inputs=inputs)
    return Artifact.open(folder)


def convert_here(source, folder, steps, precision="fp32", samples=None):
    """Convert in this process, in which a fault can be planted."""
    (folder / "out").mkdir()
    request = ConvertRequest(
        source=source,
        steps=steps,
        format=steps[-1].rpartition("_")[2],
        options=ConvertOptions(precision=precision),
        out=folder / "out",
        scratch=folder / "scratch",
        samples=samples,
    )
    pipeline.convert(request, lambda _: None)


def run(artifact):
    with open_session(artifact) as session:
        return np.stack([next(iter(session.run({session.inputs[0].name: step}).values())) for step in STEPS])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_stateful_layers_answer_step_by_step_as_keras_does(source, tmp_path, target, precision):
    path, expected = source
    made = convert(path, tmp_path / "made", target, precision)
    assert len(made.manifest.states) == 4
    assert [spec.name for spec in made.manifest.inputs] == ["x"]
    assert made.manifest.selfcheck.stateful
    np.testing.assert_allclose(run(made), expected, atol=LIMITS[precision])
    assert edge.verify(tmp_path / "made").passed


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_savedmodel_answers_step_by_step_as_keras_does(source, tmp_path, target):
    path, expected = source
    network = keras.models.load_model(path)
    signature = [tensorflow.TensorSpec(one.shape, one.dtype, name=one.name) for one in network.inputs]
    network.export(tmp_path / "saved", verbose=False, input_signature=signature)
    inputs = ConversionInputs(calibration=path.with_name("steps.npz"))
    edge.convert(tmp_path / "saved", tmp_path / "made", format=target, precision="fp32", inputs=inputs)
    made = Artifact.open(tmp_path / "made")
    assert len(made.manifest.states) == 4
    assert made.manifest.selfcheck.stateful
    np.testing.assert_allclose(run(made), expected, atol=1e-5)


def test_other_programs_pass_the_states_on_themselves(source, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path, expected = source
    made = convert(path, tmp_path / "made", "onnx")
    session = onnxruntime.InferenceSession(str(made.model), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    shapes = {one.name: one.shape for one in session.get_inputs()}
    held = {name: np.zeros(shapes[name], np.float32) for name in made.manifest.states}
    for step, wanted in zip(STEPS, expected, strict=True):
        answer = dict(zip(names, session.run(None, {"x": step, **held}), strict=True))
        held = {name: answer[output] for name, output in made.manifest.states.items()}
        np.testing.assert_allclose(answer[made.manifest.outputs[0].name], wanted, atol=1e-5)


def test_the_state_goes_on_from_call_to_call(source, tmp_path):
    path, expected = source
    convert(path, tmp_path / "made", "onnx")
    with edge.open(tmp_path / "made") as model:
        answers = [next(iter(model.run({"x": step}).values())) for step in STEPS]
    np.testing.assert_allclose(np.stack(answers), expected, atol=1e-5)


def test_an_artifact_with_states_is_converted_further(source, tmp_path):
    path, expected = source
    first = convert(path, tmp_path / "first", "onnx")
    edge.convert(
        tmp_path / "first",
        tmp_path / "second",
        format="openvino",
        precision="fp32",
        inputs=ConversionInputs(calibration=path.with_name("steps.npz")),
    )
    second = Artifact.open(tmp_path / "second")
    assert second.manifest.states == first.manifest.states
    np.testing.assert_allclose(run(second), expected, atol=1e-5)


def test_a_state_that_is_lost_is_found(source, tmp_path, monkeypatch):
    call = models.call_with_states

    def forgetful(compute, variables, values):
        return [*call(compute, variables, values)[: -len(values)], *values]

    monkeypatch.setattr(models, "call_with_states", forgetful)
    with pytest.raises(ProofError):
        convert_here(source[0], tmp_path, ("keras_to_onnx",), samples=source[0].with_name("steps.npz"))


def test_two_states_that_are_exchanged_are_found(source, tmp_path, monkeypatch):
    call = models.call_with_states

    def exchanged(compute, variables, values):
        *others, hidden, cell = call(compute, variables, values)
        return [*others, cell, hidden]

    monkeypatch.setattr(models, "call_with_states", exchanged)
    with pytest.raises(ProofError):
        convert_here(source[0], tmp_path, ("keras_to_onnx",), samples=source[0].with_name("steps.npz"))


@pytest.mark.data
def test_a_wake_word_that_forgets_is_found(data, tmp_path, monkeypatch):
    add = states._Variables._add_output
    monkeypatch.setattr(states._Variables, "_add_output", lambda self, state, _value: add(self, state, state))
    with pytest.raises(ProofError):
        convert_here(data / "real" / "okay_nabu.tflite", tmp_path, ("tflite_to_openvino",), "int8")


@pytest.mark.data
def test_a_wake_word_needs_real_steps_and_the_message_says_so(data, tmp_path):
    source = data / "real" / "okay_nabu.tflite"
    with pytest.raises(ProofError) as caught:
        edge.convert(source, tmp_path / "made-up", format="onnx", precision="int8")
    assert "pass real ones with --calibration" in caught.value.hint
    assert "start from the float model that it was quantized from" in caught.value.hint
    assert "fp16" not in caught.value.hint
    spoken = next(one for one in MODELS if one.name == source.name)
    np.savez(tmp_path / "steps.npz", **spoken.make(data / "real", np.random.default_rng(1), 64))
    inputs = ConversionInputs(calibration=tmp_path / "steps.npz")
    made = edge.convert(source, tmp_path / "spoken", format="onnx", precision="int8", inputs=inputs)
    _, answers = Artifact.open(made.artifact).selfcheck()
    assert np.ptp(next(iter(answers.values()))) > 0.5  # the word is heard
