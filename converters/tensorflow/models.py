"""Load Keras models and SavedModels safely, and trace them with fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.library_calls import loading
from converters.tensorflow.recurrent import stateful_layers, unrolled
from converters.tensorflow.tracing import Traced, inlined, traced_shapes


def traced_keras(path: Path, batch: int | None, shapes: Sequence[str] = (), *, unroll: bool = False) -> Traced:
    """Trace the model in a file as a function of its inputs in order, with batch size `batch` (None: any).

    The arguments have the names of the model's inputs; outputs are in the model's order. `unroll` writes recurrent
    layers out step by step. Raises UsageError for `shapes` (`runtimes.shapes`) that do not fit the inputs.
    """
    with loading(path, "a Keras model"):
        import tensorflow as tf

        from runtimes.engine_support.keras import call_in_order, load_model, output_names

        model = load_model(path)
        names, states = tuple(output_names(model)), stateful_layers(model)
        if unroll:
            model = unrolled(model, path)
        inputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in model.inputs}
        fixed = traced_shapes(inputs, batch, shapes)
        signature = [
            tf.TensorSpec(shape, tensor.dtype, name=tensor.name)
            for shape, tensor in zip(fixed, model.inputs, strict=True)
        ]

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(inputs: list[Any]) -> list[Any]:
            with inlined():
                return call_in_order(model, inputs)

        forward.source = model  # a state is kept in its variables
        return Traced(forward, tuple(tensor.name for tensor in model.inputs), names, states)


def traced_savedmodel(path: Path, batch: int | None, shapes: Sequence[str] = ()) -> Traced:
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
        fixed = traced_shapes(known, batch, shapes)
        tensors = [
            tf.TensorSpec(shape, specs[name].dtype, name=name) for shape, name in zip(fixed, inputs, strict=True)
        ]

        @tf.function(input_signature=[tensors])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(tensors: list[Any]) -> list[Any]:
            answer = signature(**dict(zip(inputs, tensors, strict=True)))
            return [answer[name] for name in outputs]

        forward.source = model  # keeps the model's variables alive
        return Traced(forward, tuple(inputs), tuple(outputs))
