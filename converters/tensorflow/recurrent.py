"""Recurrent layers of Keras: unrolled for int8, and with states that become inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from runtimes.errors import UsageError

MAX_UNROLLED_STEPS = 256  # each step adds some 15 to 45 operators; TensorFlow's converter takes minutes beyond that
_Variable = Any  # a keras.Variable; Keras is imported inside functions
_NOT_IN_A_NAME = r"\W"  # of an input of a TensorFlow function
_LOOPS = ("While", "StatelessWhile")
_ASSIGNMENTS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_WITH_STATES = (
    "what works: --to tflite in fp32, fp16 or w8, --to onnx or --to openvino; or build it with stateful=False"
)
_INSTEAD = "what works: --precision w8 (int8 weights), fp16 or fp32"


def unroll_recurrent(model: Any, path: Path) -> Any:
    """Return the model with its recurrent layers written out step by step, with the same weights; itself if none.

    TensorFlow's converter crashes when it quantizes the loop of a recurrent layer. Raises UsageError, naming the layer,
    for a sequence that is too long.
    """
    import keras

    looping = [layer for layer in _layers(model) if _unroll(layer.get_config())]
    if not looping:
        return model
    for layer in looping:
        _check_steps(layer, path)

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        _unroll(config)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def stateful_layers(model: Any) -> tuple[str, ...]:
    """Return the names of the layers that keep their state from one call to the next."""
    return tuple(layer.name for layer in _layers(model) if _value(layer.get_config(), "stateful"))


def state_variables(model: Any) -> dict[str, _Variable]:
    """Return the variables of stateful layers, those inside wrappers too, by names that an input can have."""
    import keras

    found: dict[str, _Variable] = {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            for variable in keras.tree.flatten(layer.states):
                found[f"{re.sub(_NOT_IN_A_NAME, '_', layer.name)}_state_{len(found)}"] = variable
    return found


def call_with_states(call: Callable[[], list[Any]], variables: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return the outputs of `call` if the variables have these values, and then what it assigns to the variables.

    The variables themselves keep their values.
    """
    import keras

    with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
        outputs = call()
        return [*outputs, *(scope.get_current_value(one) for one in variables)]


def assigning_operators(function: Any) -> tuple[str, ...]:
    """Return the names of the operators of a concrete function, and of those that it calls, that assign variables."""
    return _names_of(function, _ASSIGNMENTS)


def find_loops(function: Any) -> tuple[str, ...]:
    """Return the names of the loops in a concrete function, and in the functions that it calls."""
    return _names_of(function, _LOOPS)


def check_no_loops(function: Any) -> None:
    """Raise UsageError for a function with a loop, which TensorFlow's converter crashes on when it quantizes it."""
    found = find_loops(function)
    if found:
        what = f"'{found[0]}' loops over its input, which TensorFlow's converter cannot quantize to int8"
        raise UsageError(what, _INSTEAD)


def check_stateless(states: tuple[str, ...]) -> None:
    """Raise UsageError for layers that keep their state, which int8 TFLite cannot."""
    if states:
        what = f"layer '{states[0]}' keeps its state between calls (stateful), which edge cannot convert to int8 TFLite"
        raise UsageError(what, _WITH_STATES)


def _names_of(function: Any, operators: Collection[str]) -> tuple[str, ...]:
    """Return the names of these operators in a concrete function, and in the functions that it calls."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for one in definition.library.function for node in one.node_def)]
    return tuple(dict.fromkeys(node.name for node in nodes if node.op in operators))


def _layers(model: Any) -> Iterator[Any]:
    """Yield all layers, including those of nested models."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _unroll(config: Any) -> int:
    """Set `unroll` wherever it is unset in a layer's configuration; returns the number of places."""
    if isinstance(config, list):
        return sum(_unroll(one) for one in config)
    if not isinstance(config, dict):
        return 0
    changed = config.get("unroll") is False
    if changed:
        config["unroll"] = True
    return changed + sum(_unroll(one) for one in config.values())


def _value(config: Any, key: str) -> bool:
    """Return whether `key` is True anywhere in a layer's configuration."""
    if isinstance(config, dict):
        return config.get(key) is True or any(_value(one, key) for one in config.values())
    return isinstance(config, list) and any(_value(one, key) for one in config)


def _check_steps(layer: Any, path: Path) -> None:
    shape: tuple[int | None, ...] = tuple((layer.get_build_config() or {}).get("input_shape") or ())
    steps = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0
    if steps > MAX_UNROLLED_STEPS:
        what = f"{path}: layer '{layer.name}' runs over {steps} steps; for int8, at most {MAX_UNROLLED_STEPS} can be"
        raise UsageError(f"{what} written out", _INSTEAD)
