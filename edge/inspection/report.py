"""What a look into a model file finds, in the same words for every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runtimes.manifest import TensorSpec

# Bits of one element, where numpy has no such type or its name says otherwise.
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


@dataclass(frozen=True)
class Inspection:
    """A model as its file describes it.

    `ops` counts operators by name (Keras: layers by class). `parameter_bytes` is the size of the constants by dtype.
    `output_op` is the operator that makes the first output, None where the file does not show it.
    `edgetpu` is what was compiled for the Edge TPU. `notes` say what the file alone cannot tell.
    """

    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: Mapping[str, int]
    precision: str
    parameter_bytes: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    output_op: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    edgetpu: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `edge inspect --json` prints it; operators by falling count."""
        by_count = sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))
        specs = {"inputs": [asdict(spec) for spec in self.inputs], "outputs": [asdict(spec) for spec in self.outputs]}
        return {**vars(self), **specs, "ops": dict(by_count)}


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a packed tensor; 0 for a dtype without a fixed size, such as text."""
    bits = _BITS.get(dtype, 0)
    for size in shape:
        bits *= max(0, size)
    return (bits + 7) // 8


def precision_of(parameter_bytes: Mapping[str, int], quantised_activations: bool) -> str:
    """The project's word for a model's precision, by the dtype that most of its constants have.

    Weights of 8 bits are "int8" where activations are quantised too, else "w8"; "unknown" without constants.
    """
    if not any(parameter_bytes.values()):
        return "int8" if quantised_activations else "unknown"
    dtype = max(sorted(parameter_bytes), key=lambda name: parameter_bytes[name])
    if dtype in ("int8", "uint8"):
        return "int8" if quantised_activations else "w8"
    if dtype in ("int4", "uint4"):
        return "w4"
    return _WORDS.get(dtype, dtype)
