"""The TFLite interpreter, under either of its import names; shared by the engines `litert` and `edgetpu`."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, TypedDict

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.engine_support.adapter import import_engine, opening, running, tensor_spec, unique
from runtimes.errors import EngineError, InputError, first_line
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, TensorEngine

REQUIRES = "ai_edge_litert|tflite_runtime"
# The custom operator that edgetpu_compiler puts in place of the operators it compiled.
_EDGETPU_OPERATOR = b"edgetpu-custom-op"
_VAR_HANDLE = 142  # in BuiltinOperator of TFLite's schema
THREADS = 1  # the interpreter's own default, explicit so that measurements can report it


def interpreter_version() -> str:
    """Return the version of the installed interpreter."""
    return distribution_version("ai-edge-litert", "tflite-runtime")


def is_compiled(model: Path) -> bool:
    """Return whether a flatbuffer was compiled for the Edge TPU. Raises InputError if it cannot be read."""
    try:
        with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_EDGETPU_OPERATOR) >= 0
    except (OSError, ValueError) as error:  # ValueError: mmap refuses an empty file
        raise InputError(
            f"{model} cannot be read: {first_line(error)}", "check how the file was made or copied"
        ) from None


def has_variables(model: Path) -> bool:
    """Return whether a flatbuffer keeps values from one inference to the next; False if it cannot be read.

    They are tensors that are variables (as of LSTM and SVDF), or resources behind the handles of VAR_HANDLE.
    """
    with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            network = _Table(content, _read(content, 0, "I"))
            if any(code.number(3, "i") == _VAR_HANDLE for code in network.tables(1)):
                return True
            return any(tensor.number(5, "?") for graph in network.tables(2) for tensor in graph.tables(0))
        except struct.error:  # an offset that leads out of a file that the interpreter has opened
            return False


class _Table:
    """A table of a FlatBuffer (https://flatbuffers.dev/internals/); fields are numbered as in TFLite's schema."""

    def __init__(self, content: mmap.mmap, place: int) -> None:
        self._content, self._place = content, place
        self._fields = place - _read(content, place, "i")

    def number(self, field: int, kind: str) -> int:
        place = self._field(field)
        return _read(self._content, place, kind) if place else 0

    def tables(self, field: int) -> Iterator[_Table]:
        place = self._field(field)
        if place:
            start = place + _read(self._content, place, "I")
            for item in range(start + 4, start + 4 + 4 * _read(self._content, start, "I"), 4):
                yield _Table(self._content, item + _read(self._content, item, "I"))

    def _field(self, field: int) -> int:
        """Return where the value of a field is; 0 if the table lacks it."""
        entry = 4 + 2 * field
        is_listed = entry < _read(self._content, self._fields, "H")
        offset = _read(self._content, self._fields + entry, "H") if is_listed else 0
        return self._place + offset if offset else 0


def _read(content: mmap.mmap, place: int, kind: str) -> int:
    return int(struct.unpack_from("<" + kind, content, place)[0])


def interpreter_module(adapter: TensorEngine) -> Any:
    """Import `ai_edge_litert.interpreter`, or `tflite_runtime.interpreter` if only that is installed."""
    try:
        return import_engine(adapter, "ai_edge_litert.interpreter")
    except EngineError as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
    try:
        return import_engine(adapter, "tflite_runtime.interpreter")
    except EngineError as error:
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":
            raise
        hint = "it works with numpy 1 only: pip install 'numpy<2', or pip install ai-edge-litert instead"
        raise EngineError(error.message, hint) from error


class TfliteSession(CheckedSession):
    """An interpreter with allocated tensors, resized when a feed has another size of a free dimension."""

    def __init__(self, engine: str, interpreter: Any, options: RunOptions) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        super().__init__(specs(inputs), specs(outputs), options.threads or THREADS)
        self._engine = engine
        self._interpreter = interpreter
        self._feeds = [(spec.name, detail["index"]) for spec, detail in zip(self.inputs, inputs)]
        self._fetches = [(spec.name, detail["index"]) for spec, detail in zip(self.outputs, outputs)]
        self._free = any(isinstance(size, str) for spec in self.inputs for size in spec.shape)
        self._shapes = {detail["index"]: tuple(detail["shape"]) for detail in inputs}

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running(self._engine):
            if self._free:
                self._resize(feeds)
            for name, index in self._feeds:
                self._interpreter.set_tensor(index, feeds[name])
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._fetches}

    def _resize(self, feeds: Mapping[str, Array]) -> None:
        wanted = {index: feeds[name].shape for name, index in self._feeds}
        if wanted != self._shapes:
            for index, shape in wanted.items():
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = wanted

    def _close(self) -> None:
        del self._interpreter


def open_model(
    adapter: TensorEngine, module: Any, model: Path, options: RunOptions, delegates: Sequence[Any] = ()
) -> TfliteSession:
    """Load a flatbuffer with the given delegates. Raises InputError, naming the file, if it cannot be loaded."""
    with opening(adapter.id, model, _summary):
        interpreter = module.Interpreter(
            model_path=str(model),
            num_threads=options.threads or THREADS,
            experimental_delegates=list(delegates) or None,
        )
        interpreter.allocate_tensors()
        return TfliteSession(adapter.id, interpreter, options)


class _QuantizationDetail(TypedDict):
    scales: Sequence[float]
    zero_points: Sequence[int]
    quantized_dimension: int


class _TensorDetail(TypedDict, total=False):
    """The interpreter's description of one tensor."""

    name: str
    index: int
    dtype: type
    shape: Sequence[int]
    shape_signature: Sequence[int]
    quantization_parameters: _QuantizationDetail


def specs(details: Sequence[_TensorDetail]) -> list[TensorSpec]:
    """Convert the interpreter's description of its inputs or outputs to specs."""
    names = unique([detail["name"] for detail in details])
    return [_spec(name, detail) for name, detail in zip(names, details)]


def _spec(name: str, detail: _TensorDetail) -> TensorSpec:
    sizes = detail.get("shape_signature", detail["shape"])
    if len(sizes) != len(detail["shape"]):  # absent in files of the first converters
        sizes = detail["shape"]
    return tensor_spec(name, detail["dtype"], list(sizes), _quantization(detail["quantization_parameters"]))


def _quantization(parameters: _QuantizationDetail) -> Quantization | None:
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    if len(scales) == 0:
        return None
    axis = int(parameters["quantized_dimension"]) if len(scales) > 1 else None
    return Quantization(tuple(float(s) for s in scales), tuple(int(z) for z in zero_points), axis)


def _summary(error: BaseException) -> str:
    """Remove the URL that the interpreter puts in the middle of its message."""
    return " ".join(str(error).split(" See instructions")[0].split("\n")[0].split())[:300] or type(error).__name__
