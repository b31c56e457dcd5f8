"""TensorFlow SavedModels as a source: their serving signature, loaded safely and traced with fixed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.quiet import loading
from converters.tensorflow_function import Traced, fixed_shape


def traced(path: Path, batch: int | None) -> Traced:
    """The signature of a SavedModel as a function of its inputs, `batch` pictures at a time (None: any).

    Inputs and outputs come in the order of their names. InputError for a model that is broken or could do more than
    compute, and for a free dimension other than the batch.
    """
    with loading(path, "a SavedModel"):
        import tensorflow as tf

        from runtimes.engines.tensorflow import load_signature

        model, signature = load_signature(path)
        specs = signature.structured_input_signature[1]
        inputs, outputs = sorted(specs), sorted(signature.structured_outputs)
        shapes = [
            tf.TensorSpec(fixed_shape(name, specs[name].shape.as_list(), path, batch), specs[name].dtype, name=name)
            for name in inputs
        ]

        @tf.function(input_signature=[shapes])  # type: ignore[untyped-decorator, unused-ignore]
        def forward(tensors: list[Any]) -> list[Any]:
            answer = signature(**dict(zip(inputs, tensors, strict=True)))
            return [answer[name] for name in outputs]

        forward.source = model  # its variables live as long as it does
        return Traced(forward, tuple(inputs), tuple(outputs))
