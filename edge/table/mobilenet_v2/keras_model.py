"""Build MobileNetV2 in Keras from folded weights, and save it reproducibly."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from converters.base import Requirement
from converters.library_calls import converting, loading
from edge.table.mobilenet_v2.architecture import SIZE, Layer, classifier, convolutions
from runtimes.arrays import Array, Arrays

INPUT = "image"


def build_keras(weights: Arrays) -> Any:
    """Build a `keras.Model` from float32 [batch, 224, 224, 3] to probabilities [batch, classes] for any batch size."""
    Requirement("tensorflow").check("Keras' MobileNetV2")
    Requirement("keras").check("Keras' MobileNetV2")
    with converting("its weights", "Keras' MobileNetV2"):
        model = _empty(len(weights["classifier.bias"]))
        for layer in convolutions():
            _fill(model, layer, weights)
        dense = classifier(0)
        kernel, bias = weights[f"{dense.name}.weight"], weights[f"{dense.name}.bias"]
        model.get_layer(dense.keras).set_weights([kernel.T, bias])
    return model


def write_keras(weights: Arrays, path: Path) -> Path:
    """Build the model and save it as `path` (`.keras`)."""
    model = build_keras(weights)
    with converting(path.name, "saving with Keras"):
        save_keras(model, path)
    return path


def read_keras_weights(path: Path) -> Arrays:
    """Read and fold the weights of Keras' own ImageNet file (`.h5`, 1000 classes). Raises InputError for another."""
    Requirement("tensorflow").check("reading Keras' weights")
    Requirement("keras").check("reading Keras' weights")
    with loading(path, "Keras' MobileNetV2 weights"):
        model = _empty(1000)
        model.load_weights(path)
    weights: Arrays = {}
    for layer in convolutions():
        weights |= _fold(model, layer)
    kernel, bias = model.get_layer(classifier(0).keras).get_weights()
    return weights | {"classifier.weight": np.ascontiguousarray(kernel.T), "classifier.bias": bias}


def _empty(classes: int) -> Any:
    import keras

    # Every layer has a name: Keras numbers unnamed layers by how many this process has built before.
    image = keras.Input((SIZE, SIZE, 3), name=INPUT)
    body = keras.applications.MobileNetV2(input_tensor=image, weights=None, include_top=False)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    probabilities = keras.layers.Dense(classes, activation="softmax", name=classifier(classes).keras)(features)
    return keras.Model(image, probabilities, name="mobilenet_v2")


def _fill(model: Any, layer: Layer, weights: Arrays) -> None:
    """Set a convolution's kernel, and its BatchNorm so that it only adds the bias."""
    norm = model.get_layer(layer.keras_norm)
    bias = weights[f"{layer.name}.bias"]
    model.get_layer(layer.keras).set_weights([_to_keras(layer, weights[f"{layer.name}.weight"])])
    variance = np.full_like(bias, 1 - norm.epsilon)
    norm.set_weights([np.ones_like(bias), bias, np.zeros_like(bias), variance])


def _fold(model: Any, layer: Layer) -> Arrays:
    norm = model.get_layer(layer.keras_norm)
    gamma, beta, mean, variance = (array.astype(np.float64) for array in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    (kernel,) = model.get_layer(layer.keras).get_weights()
    weight = _from_keras(layer, kernel) * factor[:, np.newaxis, np.newaxis, np.newaxis]
    bias = beta - mean * factor
    return {f"{layer.name}.weight": weight.astype(np.float32), f"{layer.name}.bias": bias.astype(np.float32)}


def _to_keras(layer: Layer, weight: Array) -> Array:
    """[out, in, height, width] → [height, width, in, out]; [C, 1, height, width] → [height, width, C, 1]."""
    return weight.transpose(2, 3, 0, 1) if layer.depthwise else weight.transpose(2, 3, 1, 0)


def _from_keras(layer: Layer, kernel: Array) -> Array:
    return kernel.transpose(2, 3, 0, 1) if layer.depthwise else kernel.transpose(3, 2, 0, 1)


# 1 January 1980: the earliest time that a zip archive can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_keras(model: Any, path: Path) -> None:
    """Save `model` as `path` (`.keras`), with the same bytes in every run.

    Keras writes the time (into metadata.json and the zip entries) and the memory addresses of shared objects (into
    config.json), which are replaced here; the HDF5 file of the weights has neither.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.keras"
        keras.saving.save_model(model, raw)
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
            for name in sorted(source.namelist()):
                target.writestr(zipfile.ZipInfo(name, _EPOCH), _stable(name, source.read(name)))


def _stable(name: str, content: bytes) -> bytes:
    if not name.endswith(".json"):
        return content
    document = json.loads(content)
    if name == "metadata.json":
        document["date_saved"] = "1980-01-01@00:00:00"
    return json.dumps(_renumber(document, {}), sort_keys=True).encode()


def _renumber(value: Any, numbers: dict[int, int]) -> Any:
    """Number shared objects 1, 2, … by first appearance instead of by address."""
    if isinstance(value, list):
        return [_renumber(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: numbers.setdefault(item, len(numbers) + 1) if key == "shared_object_id" else _renumber(item, numbers)
        for key, item in value.items()
    }
