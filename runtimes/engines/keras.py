"""Keras 3 on TensorFlow: `.keras` and `.h5` models."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Sequence

from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.engine_support.adapter import check_options, choice, import_engine, opening, running, tensor_spec, unique
from runtimes.engine_support.keras import call_in_order, input_structure, load_model, output_names
from runtimes.engine_support.tensorflow import effective_threads, import_tensorflow
from runtimes.errors import EngineError, first_line
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine

_Call = Callable[[Sequence[Array]], Sequence[Array]]


class Adapter(TensorEngine):
    """Opens Keras models in safe mode: layers that contain Python code are refused."""

    id = "keras"
    formats: tuple[str, ...] = ("keras",)
    requires = "keras"
    board_packages = ("keras", "tensorflow", "numpy")
    settings: Mapping[str, str] = {
        "call": "compiled: the model traced once into a graph; predict: model.predict, as most scripts call it",
    }

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return distribution_version("keras")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `TensorEngine.open`. The number of threads applies to the whole process."""
        check_options(self, options)
        call = choice(self, options, "call", ("compiled", "predict"))
        keras, tensorflow = _import(self, options.threads)
        with opening(self.id, artifact.model, _summary):
            model = load_model(artifact.model)
            run = _predict(keras, model) if call == "predict" else _compile(tensorflow, model)
            return _KerasSession(model, run, effective_threads(tensorflow))


class _KerasSession(CheckedSession):
    def __init__(self, model: Any, call: _Call, threads: int | None) -> None:
        inputs = _specs(model.inputs, unique([tensor.name for tensor in model.inputs]))
        super().__init__(inputs, _specs(model.outputs, output_names(model)), threads)
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
        message = f"Keras uses the backend {keras.backend.backend()}; this engine needs TensorFlow"
        raise EngineError(message, "set KERAS_BACKEND=tensorflow")
    return keras, tensorflow


def _predict(keras: Any, model: Any) -> _Call:
    structure = input_structure(model)

    def call(arrays: Sequence[Array]) -> Sequence[Array]:
        structured = keras.tree.pack_sequence_as(structure, list(arrays))
        outputs: Sequence[Array] = keras.tree.flatten(model.predict(structured, verbose=0))
        return outputs

    return call


def _compile(tensorflow: Any, model: Any) -> _Call:
    signature = [tensorflow.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]

    def graph(*tensors: Any) -> Any:
        return call_in_order(model, tensors)

    traced = tensorflow.function(graph, input_signature=signature).get_concrete_function()

    def call(arrays: Sequence[Array]) -> Sequence[Array]:
        return [output.numpy() for output in traced(*[tensorflow.constant(array) for array in arrays])]

    return call


def _specs(tensors: Sequence[Any], names: Sequence[str]) -> list[TensorSpec]:
    return [tensor_spec(name, tensor.dtype, tensor.shape) for name, tensor in zip(names, tensors)]


# The lines of a message that say where, and with which arguments.
_PLACES = ("•", "Arguments received", "Exception encountered", "Graph execution error", "Detected at", "File ", "[[")


def _summary(error: BaseException) -> str:
    """Keep one sentence: Keras appends advice to switch off the protection against malicious files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_PLACES)]
    # TensorFlow prints the error that stopped a trace or a run last, below its location.
    is_last = bool(lines) and lines[0].startswith(("in user code", "Graph execution error"))
    message = first_line(error) if not told else told[-1] if is_last else told[0]
    return message.split(". ")[0][:300]
