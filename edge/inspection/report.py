"""The result of inspecting a model file, in the same terms for every format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from runtimes.artifact.json_fields import JsonObject, JsonValue, to_json
from runtimes.artifact.manifest import Preprocess, TensorSpec
from runtimes.model_files.facts import Producer
from runtimes.task import SoundWindows

# Bits per element, independent of numpy, which lacks some of these types.
_BITS = {
    "bool": 8,
    "bfloat16": 16,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0": 8,
    "float6_e2m3": 6,
    "float6_e3m2": 6,
    "float4_e2m1": 4,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
    "uint2": 2,
    "int8": 8,
    "uint8": 8,
    "int16": 16,
    "uint16": 16,
    "float16": 16,
    "int32": 32,
    "uint32": 32,
    "float32": 32,
    "int64": 64,
    "uint64": 64,
    "float64": 64,
    "complex64": 64,
    "complex128": 128,
}
_WORDS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class TaskDescription:
    """What a model does, and where that is known from.

    id: The task's id.
    layout: The class that decodes the outputs.
    labels: The names of the classes; None if they have none.
    picture: How a picture becomes the input; None if the model takes none, or if that is not known.
    sound: How the model takes a sound, window after window; None if it takes none.
    origins: Name of a fact ("task", "labels", "picture") → where it was read.
    assumptions: What was assumed, as sentences that name the option to override it.
    """

    id: str
    layout: str
    labels: tuple[str, ...] | None = None
    picture: Preprocess | None = None
    sound: SoundWindows | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Return the value of "task" in `edge inspect --json`."""
        return to_json(self)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A model as its file describes it.

    format: The model's format.
    inputs, outputs: The model's inputs and outputs.
    ops: The number of operators by name (Keras: layers by class).
    precision: The precision of the weights, see `precision_of`.
    parameter_bytes: The size of the constants by dtype.
    size_bytes: The size of all its files.
    producers: The operator that computes each output, None for one that the file does not show; empty if unknown.
    metadata: The metadata of the format.
    labels: The class labels in the file, if any.
    edgetpu: What was compiled for the Edge TPU, if anything.
    notes: What cannot be determined from the file alone.
    task: What the model does, as far as it can be determined without running it.
    """

    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: Mapping[str, int]
    precision: str
    parameter_bytes: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    producers: tuple[Producer | None, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    edgetpu: Mapping[str, JsonValue] | None = None
    notes: tuple[str, ...] = ()
    task: TaskDescription | None = None

    @property
    def output_op(self) -> str | None:
        """The operator that computes the first output; None if the file does not show it."""
        first = next(iter(self.producers), None)
        return first.operator if first is not None else None

    @property
    def properties(self) -> Mapping[str, str]:
        """The key/value properties that ONNX stores separately from other metadata."""
        table = self.metadata.get("properties")
        return {key: str(value) for key, value in table.items()} if isinstance(table, Mapping) else {}

    def to_json(self) -> JsonObject:
        """Return the object that `edge inspect --json` prints; operators are sorted by descending count."""
        by_count = sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))
        specs = {"inputs": [asdict(spec) for spec in self.inputs], "outputs": [asdict(spec) for spec in self.outputs]}
        facts = {key: value for key, value in vars(self).items() if key != "producers"}
        task = self.task.to_json() if self.task is not None else None
        document = {**facts, **specs, "ops": dict(by_count), "output_op": self.output_op, "task": task}
        return {key: strict_json(value) for key, value in document.items()}


def strict_json(value: Any) -> Any:
    """Return a value without what JSON does not have: NaN and infinity, which a file may hold, become null."""
    if isinstance(value, Mapping):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a packed tensor; 0 for a dtype without a fixed size, such as strings."""
    bits = _BITS.get(dtype, 0)
    for size in shape:
        bits *= max(0, size)
    return (bits + 7) // 8


def count_choices(scores: Sequence[int | str], chosen: Sequence[int | str]) -> int | None:
    """Return the number of scores among which each index is chosen, from the shapes of both; None if one is unknown."""
    if not scores or not chosen:
        return None
    sizes = [size for size in (*scores, *chosen) if isinstance(size, int) and size > 0]
    if len(sizes) < len(scores) + len(chosen):
        return None
    return math.prod(sizes[: len(scores)]) // math.prod(sizes[len(scores) :])


def precision_of(parameter_bytes: Mapping[str, int], quantized_activations: bool) -> str:
    """Return the project's name for a model's precision, from the dtype of most of its constants.

    8-bit weights are "int8" if the activations are quantized too, else "w8"; a model without constants is "unknown".
    """
    if not any(parameter_bytes.values()):
        return "int8" if quantized_activations else "unknown"
    dtype = max(sorted(parameter_bytes), key=lambda name: parameter_bytes[name])
    if dtype in ("int32", "int64") and quantized_activations:  # sizes and axes: the model has no weights
        return "int8"
    if dtype in ("int8", "uint8"):
        return "int8" if quantized_activations else "w8"
    if dtype in ("int4", "uint4"):
        return "w4"
    return _WORDS.get(dtype, dtype)
