"""TensorFlow: SavedModel folders, by their serving signature."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator, Mapping

from runtimes.adapters import check_options, opening, running, tensor_spec
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session
from runtimes.tf import effective_threads, import_tensorflow

_SIGNATURE = "serving_default"
# A graph may call operations that run Python, or read and write files; a table's vocabulary file is the exception.
_REACHES_OUT = re.compile(
    r"(?!InitializeTableFromTextFile).*(PyFunc|File|Dataset|Reader|Summary|Checkpoint|Server|Rpc|Debug).*"
    r"|(Save|Restore|Load|Print|ImmutableConst).*"
)


class Adapter:
    """Opens SavedModels of TensorFlow 2 whose functions compute and do nothing else."""

    id = "tensorflow"
    formats: tuple[str, ...] = ("savedmodel",)
    requires = "tensorflow"
    settings: Mapping[str, str] = {}

    def version(self) -> str:
        """The installed distribution's version."""
        return distribution_version("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `Runtime.open`. The number of threads holds for the whole process."""
        check_options(self, options)
        tensorflow = import_tensorflow(self, options.threads)
        with opening(self.id, artifact.model):
            return _SavedModelSession(tensorflow, *load_signature(artifact.model))


def load_signature(folder: Path) -> tuple[Any, Any]:
    """A SavedModel's object, which has to live as long as its functions, and its serving signature.

    InputError when one of its functions could reach files or Python.
    """
    import tensorflow

    _refuse_unsafe(folder)
    model = tensorflow.saved_model.load(str(folder))
    return model, _signature(model, folder)


class _SavedModelSession(CheckedSession):
    def __init__(self, tensorflow: Any, model: Any, function: Any) -> None:
        inputs = function.structured_input_signature[1]
        super().__init__(_specs(inputs), _specs(function.structured_outputs), effective_threads(tensorflow))
        self._constant = tensorflow.constant
        self._function = function
        self._model = model  # the function's variables live as long as the model does

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("tensorflow"):
            outputs = self._function(**{spec.name: self._constant(feeds[spec.name]) for spec in self.inputs})
            return {spec.name: outputs[spec.name].numpy() for spec in self.outputs}

    def _close(self) -> None:
        del self._function, self._model


def _signature(model: Any, folder: Path) -> Any:
    signatures = model.signatures
    if _SIGNATURE in signatures:
        return signatures[_SIGNATURE]
    if len(signatures) != 1:
        message = f"{folder} has no signature '{_SIGNATURE}', and {len(signatures)} others"
        raise InputError(message, "export the model with one serving signature")
    return next(iter(signatures.values()))


def _refuse_unsafe(folder: Path) -> None:
    """InputError when a function of the model could reach files or Python; told from the file, before it is loaded."""
    from tensorflow.core.protobuf import saved_model_pb2

    definition = saved_model_pb2.SavedModel()
    definition.ParseFromString((folder / "saved_model.pb").read_bytes())
    for graph in definition.meta_graphs:
        if not graph.object_graph_def.nodes:
            hint = "load it and save it again with TensorFlow 2"
            raise InputError(f"{folder} was written by TensorFlow 1", hint)
        for asset in graph.asset_file_def:
            if not re.fullmatch(r"[\w-][\w.-]*", asset.filename):
                message = f"{folder} names a file outside its assets: {asset.filename!r}"
                raise InputError(message, "do not use this model")
        for operation in _operations(graph):
            if _REACHES_OUT.fullmatch(operation):
                message = f"{folder} calls {operation}, which reaches beyond the model"
                raise InputError(message, "export the model without it")


def _operations(graph: Any) -> Iterator[str]:
    """Every operation that the model's own functions call, directly or not; saving and restoring are not among them."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    pending = [name for node in graph.object_graph_def.nodes for name in _functions(node)]
    seen = set(pending)
    while pending:
        function = library.get(pending.pop())
        for node in function.node_def if function is not None else ():
            yield node.op
            called = {node.op, *_called(node)} & library.keys() - seen
            seen |= called
            pending.extend(called)


def _functions(node: Any) -> Iterator[str]:
    yield from node.function.concrete_functions
    if node.bare_concrete_function.concrete_function_name:
        yield node.bare_concrete_function.concrete_function_name


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _specs(tensors: Mapping[str, Any]) -> list[TensorSpec]:
    return [_spec(name, tensor) for name, tensor in sorted(tensors.items())]


def _spec(name: str, tensor: Any) -> TensorSpec:
    if tensor.shape.rank is None:
        raise InputError(f"'{name}' has an unknown number of dimensions", "export the model with a fixed rank")
    return tensor_spec(name, tensor.dtype.as_numpy_dtype, tensor.shape.as_list())
