"""Files of Keras 2: read with the meaning that they have in Keras 2, or refused by the name of a layer."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.session import RunOptions

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:You are saving your model as an HDF5"
)


def written_by_keras_2(model, path, change):
    """Save `model` as Keras 2 did: `change(class, layer's configuration)` adds what it wrote."""
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            visit(config, change)
            file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), "2.15.0"
        return path
    old = shutil.move(path, path.with_suffix(".zip"))
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w") as result:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".json"):
                document = json.loads(content)
                visit(document, change)
                document |= {"keras_version": "2.15.0"} if name == "metadata.json" else {}
                content = json.dumps(document).encode()
            result.writestr(name, content)
    return path


def visit(value, change):
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        visit(one, change)
    if isinstance(value, dict) and "class_name" in value and isinstance(value.get("config"), dict):
        change(value["class_name"], value["config"])


def answers(path, values):
    with registry.tensor_engine("keras").open(Artifact.open(path), RunOptions()) as session:
        return next(iter(session.run({session.inputs[0].name: values}).values()))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_arguments_that_say_nothing_are_dropped(tmp_path, suffix):
    layers = [
        keras.layers.DepthwiseConv2D(3),
        keras.layers.SeparableConv2D(4, 3),
        keras.layers.SpatialDropout2D(0.5),
        keras.layers.Conv2DTranspose(2, 2),
        keras.layers.Reshape((-1, 2)),
        keras.layers.LSTM(3),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])

    def change(kind, config):
        if kind.startswith(("Depthwise", "Separable")) or kind.endswith("Transpose"):
            config["groups"] = 1
        if kind == "SeparableConv2D":
            config |= {"kernel_initializer": None, "kernel_regularizer": None, "kernel_constraint": None}
        if kind == "SpatialDropout2D":
            config |= {"trainable": True, "noise_shape": None}
        if kind == "LSTM":
            config |= {"time_major": False, "implementation": 2}

    path = written_by_keras_2(model, tmp_path / f"old{suffix}", change)
    with pytest.raises((TypeError, ValueError)):  # so the file is one that Keras 3 itself refuses
        keras.saving.load_model(path, compile=False)
    values = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(answers(path, values), np.asarray(model(values)), atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_hard_sigmoid_has_the_slope_of_keras_2(tmp_path, suffix):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Activation("hard_sigmoid")])
    path = written_by_keras_2(model, tmp_path / f"old{suffix}", lambda kind, config: None)
    values = np.float32([[-3, -1, 0.5, 2.6]])
    expected = [[0, 0.3, 0.6, 1]]  # clip(0.2 x + 0.5, 0, 1)
    np.testing.assert_allclose(answers(path, values), expected, atol=1e-6)
    with pytest.raises(AssertionError):  # Keras 3 alone answers something else, in silence
        np.testing.assert_allclose(np.asarray(model(values)), expected, atol=1e-3)


def test_the_gates_of_a_recurrent_layer_are_hard_as_in_keras_2(tmp_path):
    model = keras.Sequential([keras.Input((1, 2)), keras.layers.LSTM(3, recurrent_activation="hard_sigmoid")])
    path = written_by_keras_2(model, tmp_path / "old.h5", lambda kind, config: None)
    kernel, _recurrent, bias = model.get_weights()
    values = np.float32([[[1.5, -2.0]]])
    # One step from a zero state: i, f, c, o are the columns of the kernel.
    i, _f, c, o = np.split(values[0] @ kernel + bias, 4, axis=1)
    hard = lambda x: np.clip(0.2 * x + 0.5, 0, 1)  # noqa: E731
    expected = hard(o) * np.tanh(hard(i) * np.tanh(c))
    np.testing.assert_allclose(answers(path, values), expected, atol=1e-6)


def test_names_with_slashes_are_read(tmp_path):
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2, name="out_1")(keras.layers.Dense(3, name="in_1")(inputs)))
    path = tmp_path / "old.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace("in_1", "block/in").replace("out_1", "block/out")
        file.attrs["model_config"], file.attrs["keras_version"] = config, "2.15.0"
    values = np.float32([[1, 2, 3, 4]])
    np.testing.assert_allclose(answers(path, values), np.asarray(model(values)), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("TFOpLambda", {"function": "math.add"}, "layer 'odd' is a TFOpLambda of Keras 2"),
        ("MultiHeadAttention", {}, "layer 'odd' is a MultiHeadAttention of Keras 2"),
        ("DepthwiseConv2D", {"groups": 2}, r"layer 'odd' \(DepthwiseConv2D\) has groups=2"),
        ("LSTM", {"time_major": True}, r"layer 'odd' \(LSTM\) has time_major=True"),
    ],
)
def test_what_keras_3_cannot_express_is_refused_by_the_name_of_its_layer(tmp_path, kind, config, message):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="odd")])
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        document = json.loads(file.attrs["model_config"])
        document["config"]["layers"][1] = {"class_name": kind, "config": {"name": "odd", **config}}
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(document), "2.11.0"
    with pytest.raises(InputError, match=message) as raised:
        answers(tmp_path / "old.h5", np.zeros((1, 4), np.float32))
    assert "SavedModel" in str(raised.value.hint)
