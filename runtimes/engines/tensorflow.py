"""TensorFlow: SavedModel folders, run by their serving signature."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.artifact.json_fields import JsonValue
from runtimes.engine_support.adapter import check_options, opening, running, tensor_spec
from runtimes.engine_support.tensorflow import effective_threads, import_tensorflow
from runtimes.errors import InputError
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine

_SIGNATURE = "serving_default"
# A graph may contain operations that run Python code or access files; only vocabulary files of tables are allowed.
_REACHES_OUT = re.compile(
    r"(?!InitializeTableFromTextFile).*(PyFunc|File|Dataset|Reader|Summary|Checkpoint|Server|Rpc|Debug).*"
    r"|(Save|Restore|Load|Print|ImmutableConst).*"
)


class Adapter(TensorEngine):
    """Opens TensorFlow 2 SavedModels whose functions only compute."""

    id = "tensorflow"
    formats: tuple[str, ...] = ("savedmodel",)
    requires = "tensorflow"
    board_packages = ("tensorflow", "numpy")

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return distribution_version("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `TensorEngine.open`. The number of threads applies to the whole process."""
        check_options(self, options)
        tensorflow = import_tensorflow(self, options.threads)
        with opening(self.id, artifact.model):
            return _SavedModelSession(tensorflow, *load_signature(artifact.model))


def load_signature(folder: Path) -> tuple[Any, Any]:
    """Load a SavedModel. Returns its object, which must outlive its functions, and its serving signature.

    Raises InputError if one of its functions could access files or run Python code.
    """
    import tensorflow

    definition = _definition(folder)
    _refuse_unsafe(folder, definition)
    with _without_optimizer(folder, definition) as loadable:
        model = tensorflow.saved_model.load(str(loadable))
    return model, _signature(model, folder)


class _SavedModelSession(CheckedSession):
    def __init__(self, tensorflow: Any, model: Any, function: Any) -> None:
        inputs = function.structured_input_signature[1]
        super().__init__(_specs(inputs), _specs(function.structured_outputs), effective_threads(tensorflow))
        self._constant = tensorflow.constant
        self._function = function
        self._model = model  # keeps the function's variables alive

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


def _definition(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    definition = saved_model_pb2.SavedModel()
    definition.ParseFromString((folder / "saved_model.pb").read_bytes())
    return definition


@contextmanager
def _without_optimizer(folder: Path, definition: Any) -> Iterator[Path]:
    """Yield the folder, or a copy that names no variables of an optimizer, which TensorFlow 2.21 fails to restore.

    https://github.com/tensorflow/tensorflow/issues/52370
    """
    nodes = [node for graph in definition.meta_graphs for node in graph.object_graph_def.nodes]
    if not any(node.slot_variables for node in nodes):
        yield folder
        return
    for node in nodes:
        del node.slot_variables[:]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / folder.name
        shutil.copytree(folder, copy, ignore=lambda _folder, names: {"saved_model.pb", "fingerprint.pb"} & set(names))
        (copy / "saved_model.pb").write_bytes(definition.SerializeToString(deterministic=True))
        yield copy


def _refuse_unsafe(folder: Path, definition: Any) -> None:
    """Raise InputError if a function could access files or run Python code; checked in the file, before loading."""
    for graph in definition.meta_graphs:
        if not graph.object_graph_def.nodes:
            hint = "edge supports SavedModels of TensorFlow 2: load it and save it again with TensorFlow 2"
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
    """Return all operations that the model's functions call, directly or not, except for saving and restoring."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    pending = [name for node in graph.object_graph_def.nodes for name in _functions(node)]
    seen = set(pending)
    while pending:
        function = library.get(pending.pop())
        for node in function.node_def if function is not None else ():
            yield node.op
            called = {node.op, *_called_functions(node)} & library.keys() - seen
            seen |= called
            pending.extend(called)


def _functions(node: Any) -> Iterator[str]:
    yield from node.function.concrete_functions
    if node.bare_concrete_function.concrete_function_name:
        yield node.bare_concrete_function.concrete_function_name


def _called_functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _specs(tensors: Mapping[str, JsonValue]) -> list[TensorSpec]:
    return [_spec(name, tensor) for name, tensor in sorted(tensors.items())]


def _spec(name: str, tensor: Any) -> TensorSpec:
    if tensor.shape.rank is None:
        raise InputError(f"'{name}' has an unknown number of dimensions", "export the model with a fixed rank")
    return tensor_spec(name, tensor.dtype.as_numpy_dtype, tensor.shape.as_list())
