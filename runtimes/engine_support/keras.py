"""Keras models shared by the engine and the converters: loading, and the names of inputs and outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Sequence

from runtimes.engine_support.adapter import unique
from runtimes.engine_support.keras_2 import readable
from runtimes.errors import InputError

_HINT = "save it as a functional or sequential model, or provide its classes with `edge convert --code mymodule.py`"
_BRING = "provide its classes with `edge convert --code mymodule.py`, your own Python file, which is run"
_NO_LAMBDA = (
    "write it as a layer class, save the model again, and provide the class with `edge convert --code mymodule.py`"
)
# Keras 3 ("Could not locate class 'Gate'", "Unknown layer: 'Gate'"), and a module that cannot be imported.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|object|activation function|initializer)\W*)\s*'(\w+)'"
)


def load_model(path: Path) -> Any:
    """Load the `keras.Model` in a `.keras` or `.h5` file, of Keras 2 too. Keras' safe mode refuses code in it.

    Raises InputError for a model that does not declare its inputs and outputs, and for layers of Keras 2 that Keras 3
    cannot express; errors of Keras itself are passed on.
    """
    model = load_any_model(path)
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise InputError(f"{path} does not declare its inputs and outputs", _HINT)
    return model


def load_any_model(path: Path) -> Any:
    """Load a model as `load_model` does, also one that does not declare its inputs and outputs.

    Raises InputError for a custom class or function that is not registered, by its name.
    """
    import keras

    with readable(path) as file:
        try:
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
        except Exception as error:
            explained = _explain(error, path)
            if explained is None:
                raise
            raise explained from error
    _reset(model)
    return model


def _explain(error: Exception, path: Path) -> InputError | None:
    """Return an error of Keras about code that the file does not contain as an InputError; None for any other."""
    found = _UNKNOWN.search(str(error))
    if found:
        return InputError(f"{path} uses '{found[1]}', which is custom code that the file does not hold", _BRING)
    if "lambda" in str(error).lower() and "deserializ" in str(error).lower():
        return InputError(f"{path} holds a Lambda layer: Python code inside the file, which is never run", _NO_LAMBDA)
    return None


def output_names(model: Any) -> list[str]:
    """Return the names of the outputs, in the model's order.

    A model that returns a dictionary names its outputs by its keys, all others by the layers that compute them.
    """
    import keras

    structure = _output(model)
    if isinstance(structure, dict):
        return unique(["/".join(map(str, path)) for path, _tensor in keras.tree.flatten_with_path(structure)])
    # A sequential model only exposes its last layer.
    names: Sequence[str] = getattr(model, "output_names", None) or [model.layers[-1].name]
    return unique(names)


def input_structure(model: Any) -> Any:
    """Return the structure of the model's inputs: a tensor, or nested lists and dictionaries of tensors."""
    try:
        return model.input
    except AttributeError:  # a sequential model that was not called since it was loaded
        return model.inputs[0]


def _output(model: Any) -> Any:
    try:
        return model.output
    except AttributeError:
        return model.outputs[0]


def call_in_order(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """Call the model with its inputs in order, whatever structure it takes; returns its outputs in order."""
    import keras

    structured = keras.tree.pack_sequence_as(input_structure(model), list(tensors))
    return list(keras.tree.flatten(model(structured, training=False)))


def _reset(model: Any) -> None:
    """Set the state of stateful layers to zero; the file contains whatever was there when it was saved."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _reset(layer)
        elif isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)) and layer.stateful:
            layer.reset_state()
