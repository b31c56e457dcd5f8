"""Load Keras models and SavedModels safely, and trace them with fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.base import NEXT_STATE
from converters.library_calls import loading
from converters.tensorflow.recurrent import (
    assigning_operators,
    call_with_states,
    state_variables,
    stateful_layers,
    unroll_recurrent,
)
from converters.tensorflow.tracing import TracedFunction, inline_functions, shapes_to_trace


def trace_keras(
    path: Path,
    batch: int | None,
    shapes: Sequence[str] = (),
    *,
    unroll: bool = False,
    explicit_states: bool = False,
) -> TracedFunction:
    """Trace the model in a file as a function of its inputs in order, with batch size `batch` (None: any).

    The arguments have the names of the model's inputs; outputs are in the model's order. `unroll` writes recurrent
    layers out step by step, `explicit_states` adds an input and an output for each state. Raises UsageError for
    `shapes` (`runtimes.shapes`) that do not fit the inputs.
    """
    with loading(path, "a Keras model"):
        import tensorflow as tf

        from runtimes.engine_support.keras import call_in_order, load_model, output_names

        model = load_model(path)
        names, stateful = tuple(output_names(model)), stateful_layers(model)
        if unroll:
            model = unroll_recurrent(model, path)
        variables = state_variables(model) if explicit_states else {}
        inputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in model.inputs}
        fixed = shapes_to_trace(inputs, batch, shapes)
        signature = [
            tf.TensorSpec(shape, tensor.dtype, name=tensor.name)
            for shape, tensor in zip(fixed, model.inputs, strict=True)
        ]
        signature += [tf.TensorSpec(one.shape, one.dtype, name=name) for name, one in variables.items()]
        count = len(model.inputs)

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(tensors: list[Any]) -> list[Any]:
            with inline_functions():
                if not variables:
                    return call_in_order(model, tensors)
                values = list(variables.values())
                return call_with_states(lambda: call_in_order(model, tensors[:count]), values, tensors[count:])

        forward.source = model  # a state is kept in its variables
        states = {name: f"{name}{NEXT_STATE}" for name in variables}
        return TracedFunction(
            function=forward,
            inputs=(*(tensor.name for tensor in model.inputs), *states),
            outputs=(*names, *states.values()),
            stateful=() if explicit_states else stateful,
            states=states,
        )


def trace_savedmodel(path: Path, batch: int | None, shapes: Sequence[str] = ()) -> TracedFunction:
    """Trace the signature of a SavedModel as a function of its inputs, with batch size `batch` (None: any).

    Inputs and outputs are sorted by name. Raises InputError for a model that is broken or could do more than compute,
    and UsageError for `shapes` (`runtimes.shapes`) that do not fit the inputs.
    """
    with loading(path, "a SavedModel"):
        import tensorflow as tf

        from runtimes.engines.tensorflow import load_signature

        model, signature = load_signature(path)
        specs = signature.structured_input_signature[1]
        inputs, outputs = sorted(specs), sorted(signature.structured_outputs)
        known = {name: (specs[name].dtype.as_numpy_dtype, specs[name].shape.as_list()) for name in inputs}
        fixed = shapes_to_trace(known, batch, shapes)
        tensors = [
            tf.TensorSpec(shape, specs[name].dtype, name=name) for shape, name in zip(fixed, inputs, strict=True)
        ]

        @tf.function(input_signature=[tensors])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(tensors: list[Any]) -> list[Any]:
            answer = signature(**dict(zip(inputs, tensors, strict=True)))
            return [answer[name] for name in outputs]

        forward.source = model  # keeps the model's variables alive
        stateful = tuple(name.rpartition("/")[0] or name for name in assigning_operators(signature))
        return TracedFunction(function=forward, inputs=tuple(inputs), outputs=tuple(outputs), stateful=stateful)
