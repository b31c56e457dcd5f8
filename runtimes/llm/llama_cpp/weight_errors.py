"""Compare the weights of a quantized GGUF file with those of its source, tensor by tensor."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import EngineError
from runtimes.model_files.gguf import TENSOR_TYPES, TensorInfo, read_gguf
from runtimes.quantization_jobs import TensorError

_SAMPLE = 2**20  # weights of each tensor, in evenly spaced rows
_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


class _Traits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h, without its last entry."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]


def weight_errors(before: Path, after: Path) -> list[TensorError]:
    """Return the error of each tensor that has another type than its source, the largest first.

    Empty for split files. Raises EngineError if quantization wrote values that are not finite.
    """
    source, result = read_gguf(before), read_gguf(after)
    if "split.count" in source.metadata:
        return []
    tensors = {tensor.name: tensor for tensor in source.tensors}
    changed = [one for one in result.tensors if one.name in tensors and one.type != tensors[one.name].type]
    errors = [TensorError(one.name, one.type, _error(before, tensors[one.name], after, one)) for one in changed]
    broken = [one.tensor for one in errors if not math.isfinite(one.relative_error)]
    if broken:
        raise EngineError(f"quantization wrote values that are not finite: {broken[0]}", "try another type")
    return sorted(errors, key=lambda one: -one.relative_error)


def _error(before: Path, source: TensorInfo, after: Path, result: TensorInfo) -> float:
    row = source.shape[0]
    rows = source.elements // row
    step = max(1, rows * row // _SAMPLE)
    different = total = 0.0
    for index in range(0, rows, step):
        expected, given = _row(before, source, index), _row(after, result, index)
        different += float(np.square(expected - given, dtype=np.float64).sum())
        total += float(np.square(expected, dtype=np.float64).sum())
    return math.sqrt(different / total) if total else math.sqrt(different)


def _row(path: Path, tensor: TensorInfo, index: int) -> Array:
    """Read a row as float32."""
    width = tensor.shape[0]
    size = tensor.bytes // (tensor.elements // width)
    packed = np.fromfile(path, np.uint8, size, offset=tensor.offset + index * size)
    if tensor.type == "F32":
        return packed.view(np.float32)
    values: Array = np.empty(width, np.float32)
    _traits(tensor.type).to_float(packed.ctypes.data, values.ctypes.data, width)
    return values


def _traits(kind: str) -> Any:
    from llama_cpp._ggml import libggml

    traits = libggml.ggml_get_type_traits
    traits.argtypes, traits.restype = [ctypes.c_int], ctypes.POINTER(_Traits)
    return traits(_NUMBERS[kind]).contents
