"""Keras models as a source: loaded safely and traced with fixed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.quiet import loading
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


def traced(model: Any, path: Path, batch: int | None) -> Any:
    """The model as a TensorFlow concrete function of its inputs in order, `batch` pictures at a time (None: any).

    The arguments bear the names of the model's inputs; outputs come in the model's order. InputError for a free
    dimension other than the batch.
    """
    with loading(path, "a Keras model"):
        import tensorflow as tf

        signature = [
            tf.TensorSpec(_fixed_shape(tensor, path, batch), tensor.dtype, name=tensor.name) for tensor in model.inputs
        ]

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(inputs: list[Any]) -> list[Any]:
            answer = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
            return list(tf.nest.flatten(answer))

        return forward


def _fixed_shape(tensor: Any, path: Path, batch: int | None) -> tuple[int | None, ...]:
    shape = tuple(tensor.shape)
    if None in shape[1:]:
        raise InputError(
            f"{path}: input '{tensor.name}' has the free shape {list(shape)}",
            "build the model with fixed sizes; only the batch may be free",
        )
    return (batch, *shape[1:])
