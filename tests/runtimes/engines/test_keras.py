"""Keras and TensorFlow: files are data, both ways to call a model agree, threads are set once for a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, InputError
from runtimes.session import RunOptions, example_feeds

ROOT = Path(__file__).parents[3]
# Keras reads its own variables in a way that numpy 2 deprecates, whenever it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def tf():
    pytest.importorskip("keras")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def keras(tf):
    return pytest.importorskip("keras")


def open_it(model, runtime="keras", **options):
    return registry.tensor_engine(runtime).open(Artifact.open(model), RunOptions(**options))


def test_predict_and_the_compiled_call_agree(keras, models):
    answers = []
    for call in ("compiled", "predict"):
        with open_it(models / "keras.keras", settings={"call": call}) as session:
            answers.append(session.run(example_feeds(session.inputs)))
    assert list(answers[0]) == ["sum", "double"]
    for name in answers[0]:
        np.testing.assert_allclose(answers[0][name], answers[1][name], rtol=1e-6)


def test_predict_is_what_predict_runs(keras, models, monkeypatch):
    calls = []
    monkeypatch.setattr(
        keras.Model, "predict", lambda model, feeds, verbose: calls.append(feeds) or list(feeds.values())
    )
    with open_it(models / "keras.keras", settings={"call": "predict"}) as session:
        session.run(example_feeds(session.inputs))
    assert [sorted(feeds) for feeds in calls] == [["narrow", "wide"]]


@pytest.fixture
def network(keras):
    inputs = keras.Input((4,), name="x")
    shared = keras.layers.Dense(2, name="shared")
    return keras.Model(inputs, [shared(inputs), shared(inputs + 1)])


def test_two_outputs_of_one_layer_keep_apart(network, tmp_path):
    network.save(tmp_path / "m.keras")
    with open_it(tmp_path / "m.keras") as session:
        feeds = example_feeds(session.inputs)
        outputs = session.run(feeds)
    assert [spec.name for spec in session.outputs] == ["shared", "shared:1"]
    for name, expected in zip(("shared", "shared:1"), network(feeds["x"])):
        np.testing.assert_allclose(outputs[name], expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("call", ["compiled", "predict"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_sequential_model_is_opened_from_either_kind_of_file(keras, tmp_path, suffix, call):
    network = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    network.save(tmp_path / f"m{suffix}")
    with open_it(tmp_path / f"m{suffix}", settings={"call": call}) as session:
        assert (session.inputs[0].name, session.outputs[0].name) == ("x", "y")
        feeds = example_feeds(session.inputs)
        (output,) = session.run(feeds).values()
    np.testing.assert_allclose(output, network(next(iter(feeds.values()))).numpy(), rtol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_with_python_in_it_is_refused(keras, tmp_path, suffix):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / f"m{suffix}")
    with pytest.raises(InputError, match="Lambda") as caught:
        open_it(tmp_path / f"m{suffix}")
    assert "safe_mode" not in caught.value.message + caught.value.hint


def test_another_backend_is_refused(keras, models, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(EngineError, match="Keras uses the backend jax"):
        open_it(models / "keras.keras")


@pytest.mark.parametrize(("runtime", "model"), [("keras", "keras.keras"), ("tensorflow", "tensorflow")])
def test_a_failing_inference_is_an_error_of_the_engine(tf, models, runtime, model):
    feeds = {"wide": np.zeros((2, 4), np.float32), "narrow": np.zeros((3, 3), np.float32)}
    failing = pytest.raises(EngineError, match=f"{runtime} failed to run the model")
    with open_it(models / model, runtime) as session, failing as caught:
        session.run(feeds)
    assert "\n" not in caught.value.message


def saved(tf, function, folder):
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec([None, 3], name="x")], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder


def test_a_savedmodel_that_writes_files_is_refused_before_it_runs(tf, tmp_path):
    def serve(x):
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "x")]):
            return {"y": x * 2}

    with pytest.raises(InputError, match="calls WriteFile"):
        open_it(saved(tf, serve, tmp_path / "m"), "tensorflow")
    assert not (tmp_path / "written").exists()


def test_a_savedmodel_that_prints_to_a_file_is_refused(tf, tmp_path):
    def serve(x):
        with tf.control_dependencies([tf.print("x", output_stream=f"file://{tmp_path}/written")]):
            return {"y": x * 2}

    with pytest.raises(InputError, match="calls PrintV2"):
        open_it(saved(tf, serve, tmp_path / "m"), "tensorflow")


def test_a_savedmodel_that_calls_python_is_refused_wherever_it_does(tf, tmp_path):
    def serve(x):
        inner = tf.function(lambda: tf.numpy_function(lambda a: a, [x], tf.float32), autograph=False)
        return {"y": tf.cond(tf.reduce_sum(x) > 0, inner, lambda: x)}

    with pytest.raises(InputError, match="calls PyFunc"):
        open_it(saved(tf, serve, tmp_path / "m"), "tensorflow")


def test_a_savedmodel_without_its_variables_is_refused(tf, models, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((models / "tensorflow" / "saved_model.pb").read_bytes())
    with pytest.raises(InputError, match="variables"):
        open_it(tmp_path, "tensorflow")


def test_threads_hold_for_the_process(tf, models):
    """Elsewhere: TensorFlow's pools here are those of whichever test came first."""
    program = (
        "import sys, pathlib\n"
        "from runtimes import registry\n"
        "from runtimes.artifact import Artifact\n"
        "from runtimes.session import RunOptions, example_feeds\n"
        "model = Artifact.open(pathlib.Path(sys.argv[1]))\n"
        "for threads in (1, 1, 2):\n"
        "    with registry.tensor_engine('tensorflow').open(model, RunOptions(threads=threads)) as session:\n"
        "        session.run(example_feeds(session.inputs))\n"
        "        print(session.threads)\n"
    )
    command = [sys.executable, "-c", program, str(models / "tensorflow")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1"]
    assert "TensorFlow already runs in this process with its threads at 1, not 2" in done.stderr


def test_what_stopped_a_run_is_said_and_not_where(keras, tmp_path):
    """TensorFlow's CPU kernels have no channels first."""
    layer = keras.layers.Conv2D(2, 3, data_format="channels_first")
    keras.Sequential([keras.Input((3, 8, 8)), layer]).save(tmp_path / "first.keras")
    with open_it(tmp_path / "first.keras") as session, pytest.raises(
        EngineError, match="only supports the NHWC"
    ) as caught:
        session.run(example_feeds(session.inputs))
    assert "Graph execution error" not in caught.value.message
