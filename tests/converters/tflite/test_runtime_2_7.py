"""TFLite 2.7, as old as the Edge TPU compiler: it runs our int8 models correctly, and shows which it does not."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from converters.pipeline import verification
from converters.pipeline.verification import verify
from converters.tflite_to_edgetpu import OLD_ENGINE, old_cross_check, old_tflite_answers
from runtimes.errors import EngineError, InputError

pytestmark = pytest.mark.slow

SAMPLES = np.random.default_rng(0).uniform(-1, 1, (40, 1, 8)).astype(np.float32)
PIXELS = {"x": np.clip(np.round(SAMPLES * 127.5 + 127.5), 0, 255).astype(np.uint8)}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A dense classifier whose classes have weights of very unlike size: (file, its answers to SAMPLES)."""
    path = tmp_path_factory.mktemp("dense") / "dense.keras"
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        generator = np.random.default_rng(1)
        image = keras.Input((8,), name="x")
        model = keras.Model(image, keras.layers.Dense(6, activation="softmax", name="dense")(image))
        kernel = generator.normal(0, 1, (8, 6)) * np.array([8, 4, 2, 1, 0.5, 0.25])
        model.get_layer("dense").set_weights([kernel.astype(np.float32), np.zeros(6, np.float32)])
        model.save(path)
        answers = model.predict(SAMPLES[:, 0], verbose=0)[:, None]
    return path, {"scores": answers.astype(np.float32)}


def _ours(path, out):
    from converters.keras_to_tflite import KerasToTflite

    calibration = Calibration({"x": SAMPLES})
    return KerasToTflite().convert(path, out, ConvertOptions(precision="int8", io_dtype="uint8"), calibration).model


def _per_channel(path, out):
    """As TensorFlow's converter writes it unless told otherwise."""
    with suppress_output():
        import keras
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(keras.saving.load_model(path))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in SAMPLES)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        (out / "per_channel.tflite").write_bytes(converter.convert())
    return out / "per_channel.tflite"


def _verdict(truth, answers):
    return verify("int8", truth, {"scores": next(iter(answers.values()))})


def _here(model):
    """LiteRT's answers, which are right for both."""
    from runtimes.artifact import Artifact
    from runtimes.registry import for_format
    from runtimes.session import RunOptions
    from runtimes.verification.selfcheck import answers

    pytest.importorskip("ai_edge_litert")
    with for_format("tflite").open(Artifact.open(model), RunOptions()) as session:
        return answers(session, {session.inputs[0].name: PIXELS["x"]})


def test_ours_is_right_here_and_there(network, tmp_path):
    path, truth = network
    model = _ours(path, tmp_path)
    assert _verdict(truth, _here(model)).passed
    assert _verdict(truth, old_tflite_answers(model, PIXELS)).passed


def test_a_dense_layer_with_a_scale_for_each_output_is_right_here_and_wrong_there(network, tmp_path):
    path, truth = network
    model = _per_channel(path, tmp_path)
    here = _verdict(truth, _here(model))
    assert here.passed
    there = _verdict(truth, old_tflite_answers(model, PIXELS))
    assert not there.passed
    testimony = old_cross_check(model)(PIXELS, ["scores"])
    assert (testimony.engine, list(testimony.answers)) == (OLD_ENGINE, ["scores"])
    both = verification.combine_verdicts(here, testimony, "int8", truth)
    assert not both.passed
    assert both.message.startswith(f"on {OLD_ENGINE}, output 'scores' is ")


def test_a_file_that_it_does_not_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"on .*missing\.tflite: this runtime cannot load the model"):
        old_tflite_answers(tmp_path / "missing.tflite", PIXELS)


def test_weights_outside_the_flatbuffer_are_read_once_they_are_inside(network, moved_outside, tmp_path):
    from converters.tflite.writer import write_inline

    model = _ours(network[0], tmp_path)
    model = getattr(model, "model", model)
    outside = moved_outside(model, tmp_path / "outside.tflite")
    with pytest.raises(EngineError, match="lacks data"):
        old_tflite_answers(outside, PIXELS)
    found = old_tflite_answers(write_inline(outside, tmp_path / "inside.tflite"), PIXELS)
    for name, values in old_tflite_answers(model, PIXELS).items():
        assert np.array_equal(found[name], values)
