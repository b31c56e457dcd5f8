"""Keras 3 on TensorFlow: `.keras` and `.h5` models as they were trained."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Sequence

from runtimes.adapters import check_options, choice, import_engine, opening, running, tensor_spec, unique
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EngineError, InputError, first_line
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session
from runtimes.tf import effective_threads, import_tensorflow

_Call = Callable[[Sequence[Array]], Sequence[Array]]


class Adapter:
    """Opens Keras models in safe mode: a layer that carries Python code is refused."""

    id = "keras"
    formats: tuple[str, ...] = ("keras",)
    requires = "keras"
    settings: Mapping[str, str] = {
        "call": "compiled: the model traced once into a graph; predict: model.predict, as most scripts call it",
    }

    def version(self) -> str:
        """The installed distribution's version."""
        return distribution_version("keras")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `Runtime.open`. The number of threads holds for the whole process."""
        check_options(self, options)
        call = choice(self, options, "call", ("compiled", "predict"))
        keras, tensorflow = _import(self, options.threads)
        with opening(self.id, artifact.model, _summary):
            model = keras.saving.load_model(artifact.model, compile=False, safe_mode=True)
            _check_model(model, artifact)
            run = _predict(keras, model) if call == "predict" else _compiled(keras, tensorflow, model)
            return _KerasSession(model, run, effective_threads(tensorflow))


class _KerasSession(CheckedSession):
    def __init__(self, model: Any, call: _Call, threads: int | None) -> None:
        super().__init__(_specs(model.inputs), _specs(model.outputs, _output_names(model)), threads)
        self._call = call

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("keras", _summary):
            outputs = self._call([feeds[spec.name] for spec in self.inputs])
            return {spec.name: value for spec, value in zip(self.outputs, outputs)}

    def _close(self) -> None:
        del self._call


def _import(adapter: Adapter, threads: int | None) -> tuple[Any, Any]:
    tensorflow = import_tensorflow(adapter, threads)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    keras = import_engine(adapter, "keras")
    if keras.backend.backend() != "tensorflow":
        message = f"Keras runs on {keras.backend.backend()} here; this adapter needs TensorFlow beneath it"
        raise EngineError(message, "set KERAS_BACKEND=tensorflow")
    return keras, tensorflow


def _check_model(model: Any, artifact: Artifact) -> None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        hint = "save it as a functional or sequential model"
        raise InputError(f"{artifact.model} does not say what its inputs and outputs are", hint)


def _output_names(model: Any) -> Sequence[str]:
    """The layers that the outputs come from; a sequential model only knows its last."""
    names: Sequence[str] = getattr(model, "output_names", None) or [model.layers[-1].name]
    return names


def _structure(model: Any) -> Any:
    """How the model wants its inputs: one tensor, or tensors in lists and dictionaries."""
    try:
        return model.input
    except AttributeError:  # a sequential model that was not called since it was loaded
        return model.inputs[0]


def _predict(keras: Any, model: Any) -> _Call:
    structure = _structure(model)

    def call(arrays: Sequence[Array]) -> Sequence[Array]:
        structured = keras.tree.pack_sequence_as(structure, list(arrays))
        outputs: Sequence[Array] = keras.tree.flatten(model.predict(structured, verbose=0))
        return outputs

    return call


def _compiled(keras: Any, tensorflow: Any, model: Any) -> _Call:
    structure = _structure(model)
    signature = [tensorflow.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]

    def graph(*tensors: Any) -> Any:
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, list(tensors)), training=False))

    traced = tensorflow.function(graph, input_signature=signature).get_concrete_function()

    def call(arrays: Sequence[Array]) -> Sequence[Array]:
        return [output.numpy() for output in traced(*[tensorflow.constant(array) for array in arrays])]

    return call


def _specs(tensors: Sequence[Any], names: Sequence[str] | None = None) -> list[TensorSpec]:
    names = unique(names or [tensor.name for tensor in tensors])
    return [tensor_spec(name, tensor.dtype, tensor.shape) for name, tensor in zip(names, tensors)]


def _summary(error: BaseException) -> str:
    """One sentence: Keras follows it with advice to switch off what protects from hostile files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TensorFlow puts the error that stopped a trace last, below where it happened.
    said = lines[-1] if lines and lines[0].startswith("in user code") else first_line(error)
    return said.split(". ")[0][:300]
