"""MobileNetV2 in Keras: built from folded weights, saved with the same bytes for the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.mobilenet_v2.architecture import SIZE, Layer, classifier, convolutions
from converters.mobilenet_v2.keras_file import save_keras
from converters.quiet import converting, loading
from converters.steps import check_library
from runtimes.arrays import Array, Arrays

INPUT = "image"


def build_keras(weights: Arrays) -> Any:
    """A `keras.Model` from float32 [batch, 224, 224, 3] to probabilities [batch, classes]; the batch is free."""
    check_library("tensorflow", "Keras' MobileNetV2")
    check_library("keras", "Keras' MobileNetV2")
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
    """The folded weights in Keras' own ImageNet file (`.h5`, 1000 classes); InputError when it is another one."""
    check_library("tensorflow", "reading Keras' weights")
    check_library("keras", "reading Keras' weights")
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

    # Every layer is named here: Keras would number the unnamed ones by how many models this process has built.
    image = keras.Input((SIZE, SIZE, 3), name=INPUT)
    body = keras.applications.MobileNetV2(input_tensor=image, weights=None, include_top=False)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    answer = keras.layers.Dense(classes, activation="softmax", name=classifier(classes).keras)(features)
    return keras.Model(image, answer, name="mobilenet_v2")


def _fill(model: Any, layer: Layer, weights: Arrays) -> None:
    """Set a convolution's kernel and make its BatchNorm add the bias and nothing else."""
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
