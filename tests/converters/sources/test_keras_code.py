"""Keras models with custom classes: refused by the name of the class, or converted with the user's code."""

from __future__ import annotations

import numpy as np
import pytest

from converters.library_calls import suppress_output
from converters.sources import all_sources, source_of
from converters.sources.source import SourceOptions
from runtimes.engine_support.keras import load_model
from runtimes.errors import InputError, UsageError

pytest.importorskip("tensorflow")
with suppress_output():
    keras = pytest.importorskip("keras")

CODE = """
import keras


class Gate(keras.layers.Layer):
    def __init__(self, strength=1.0, **rest):
        super().__init__(**rest)
        self.strength = strength

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1],), name="weight", initializer="ones")

    def call(self, x):
        return keras.ops.sigmoid(x * self.weight) * twice(x) * self.strength

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


def twice(x):
    return 2 * x


class Network(keras.Model):
    def __init__(self, **rest):
        super().__init__(**rest)
        self.dense, self.gate = keras.layers.Dense(3), Gate(0.5)

    def call(self, x):
        return self.gate(self.dense(x))
"""
PAIR = """

class Pair(keras.Model):
    def __init__(self, **rest):
        super().__init__(**rest)
        self.dense = keras.layers.Dense(3)

    def call(self, given):
        old, new = self.dense(given["old"]), self.dense(given["new"])
        return {"sum": old + new, "change": new - old}
"""
VALUES = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "gates.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def classes(code):
    space = {"__name__": "gates_when_saved"}
    exec(code.read_text(), space)
    return space


def functional(classes):
    given = keras.Input((4,), name="signal")
    return keras.Model(given, classes["Gate"](0.25, name="gated")(given))


def subclassed(classes):
    model = classes["Network"]()
    model(np.zeros((1, 4), np.float32))
    return model


@pytest.mark.parametrize("make", [functional, subclassed])
def test_a_model_with_custom_classes_becomes_a_savedmodel(code, classes, tmp_path, make):
    import tensorflow as tf

    with suppress_output():
        model = make(classes)
        for weight in model.weights:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))
        expected = np.asarray(model(VALUES))
        path, out = tmp_path / "model.keras", tmp_path / "out"
        model.save(path)
        out.mkdir()
        opened = source_of(path).open(path, SourceOptions(code=str(code)))
        assert (opened.format, opened.artifact.manifest.name) == ("savedmodel", "model")
        signature = tf.saved_model.load(str(opened.export.run(out))).signatures["serving_default"]
    names = list(signature.structured_input_signature[1])
    if make is functional:
        assert (names, list(signature.structured_outputs)) == (["signal"], ["gated"])
    (answer,) = signature(**{names[0]: tf.constant(VALUES)}).values()
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_a_subclassed_model_takes_and_returns_dictionaries(code, tmp_path):
    import tensorflow as tf

    code.write_text(CODE + PAIR)
    space = {"__name__": "pair_when_saved"}
    exec(code.read_text(), space)
    feeds = {"old": VALUES, "new": VALUES[::-1]}
    with suppress_output():
        model = space["Pair"]()
        expected = model(feeds)
        path, out = tmp_path / "model.keras", tmp_path / "out"
        model.save(path)
        out.mkdir()
        opened = source_of(path).open(path, SourceOptions(code=str(code)))
        signature = tf.saved_model.load(str(opened.export.run(out))).signatures["serving_default"]
    given = signature(**{name: tf.constant(values) for name, values in feeds.items()})
    assert set(given) == {"sum", "change"}
    for name, values in given.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)


def test_without_the_option_the_class_is_named(code, classes, tmp_path):
    path = tmp_path / "model.keras"
    with suppress_output():
        functional(classes).save(path)
    with pytest.raises(InputError, match="uses 'Gate', which is custom code") as caught:
        load_model(path)
    assert "--code mymodule.py" in caught.value.hint
    assert "\n" not in caught.value.message


def test_python_code_inside_the_file_is_named_and_not_run(tmp_path):
    path, given = tmp_path / "model.keras", keras.Input((4,))
    with suppress_output():
        keras.Model(given, keras.layers.Lambda(lambda x: x + 1)(given)).save(path)
    with pytest.raises(InputError, match="holds a Lambda layer"):
        load_model(path)


def test_code_that_fails_or_does_not_fit_is_reported(code, tmp_path):
    model, options = tmp_path / "model.keras", SourceOptions(code=str(code))
    model.touch()
    with pytest.raises(UsageError, match="--code does not apply"):
        next(one for one in all_sources() if one.id == "artifact").open(tmp_path / "model.onnx", options)
    with pytest.raises(InputError, match=r"gone\.py does not exist"):
        source_of(model).open(model, SourceOptions(code=str(tmp_path / "gone.py")))
    code.write_text("1 / 0")
    with pytest.raises(InputError, match="cannot be imported: division by zero"):
        source_of(model).open(model, options).export.run(tmp_path)
