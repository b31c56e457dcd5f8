"""Keras models as a source: loaded safely and traced with fixed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.quiet import loading
from converters.tensorflow_function import Traced, fixed_shape, inlined
from runtimes.errors import InputError


def load_keras(path: Path) -> Any:
    """The `keras.Model` in a `.keras` or `.h5` file; code in it is refused (Keras' safe mode). InputError if broken."""
    with loading(path, "a Keras model"):
        import keras

        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if not model.inputs:
        raise InputError(f"{path} does not say what it takes", "save the model after calling it once")
    if isinstance(model, keras.Sequential):  # which knows no names of its outputs
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return model


def traced(path: Path, batch: int | None) -> Traced:
    """The model in a file as a function of its inputs in order, `batch` pictures at a time (None: any).

    The arguments bear the names of the model's inputs; outputs come in the model's order. InputError for a free
    dimension other than the batch.
    """
    model = load_keras(path)
    with loading(path, "a Keras model"):
        import tensorflow as tf

        signature = [
            tf.TensorSpec(fixed_shape(tensor.name, tensor.shape, path, batch), tensor.dtype, name=tensor.name)
            for tensor in model.inputs
        ]

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(inputs: list[Any]) -> list[Any]:
            with inlined():
                answer = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
            return list(tf.nest.flatten(answer))

        return Traced(forward, tuple(tensor.name for tensor in model.inputs), tuple(model.output_names))
