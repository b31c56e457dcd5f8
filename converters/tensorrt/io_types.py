"""The types of inputs, outputs and casts that a release of TensorRT reads, and integer inputs that become float32.

Sources: "TensorRT supports the following ONNX data types" in docs/operators.md of
https://github.com/onnx/onnx-tensorrt at its branches, and its docs/Changelog.md: UINT8 inputs and outputs came with
8.5, BF16 and FP8 with 9.0, INT4 with 10.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.check.report import CompatibilityIssue
from converters.onnx.graph import OnnxGraph, OnnxNode, dtype_name

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

_Release = tuple[int, int]

_TYPES = frozenset(("float32", "float16", "float64", "int8", "int32", "int64", "bool", "undefined"))
_SINCE: dict[str, _Release] = {
    "uint8": (8, 5),
    "bfloat16": (9, 0),
    "float8_e4m3fn": (9, 0),
    "int4": (10, 0),
}
_SMALL_INTEGERS = ("uint8", "uint16", "int16")  # float32 holds all of their values
# Operators that move values of any type; a Cast ends the walk.
_MOVERS = ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Split", "Tile", "Expand")


@dataclass(frozen=True)
class FloatInput:
    """An input that is written as float32, because the release does not take its type."""

    name: str
    dtype: str

    def __str__(self) -> str:
        return f"'{self.name}' ({self.dtype})"


def takes(dtype: str, release: _Release) -> bool:
    """Return whether the parser of the release reads tensors of this type."""
    return dtype in _TYPES or (dtype in _SINCE and _SINCE[dtype] <= release)


def float_inputs(graph: OnnxGraph, release: _Release) -> tuple[FloatInput, ...]:
    """Return the integer inputs that the release does not take, and that may be float32: only a Cast computes on them.

    TensorRT reads UINT8 only where a Cast follows, so one that is moved before its Cast is float32 in every release.
    """
    found = []
    for name in graph.inputs:
        dtype = graph.dtypes.get(name, "")
        if dtype not in _SMALL_INTEGERS or (takes(dtype, release) and _is_cast_at_once(name, graph)):
            continue
        if _obstacle(name, graph) is None:
            found.append(FloatInput(name, dtype))
    return tuple(found)


def type_refusals(graph: OnnxGraph, release: _Release, name: str, rewrites: bool) -> Iterator[CompatibilityIssue]:
    """Yield the inputs and outputs whose types the release, called `name`, does not read.

    With `rewrites` True, inputs that `edge convert` writes as float32 are accepted.
    """
    rewritten = {one.name for one in float_inputs(graph, release)} if rewrites else set()
    for tensor in graph.inputs:
        dtype = graph.dtypes.get(tensor, "")
        if dtype and not takes(dtype, release) and tensor not in rewritten:
            node = _obstacle(tensor, graph) if dtype in _SMALL_INTEGERS and rewrites else None
            where = f", and {node.op} '{node.name}' computes on it" if node is not None else ""
            fix = "make it float32 in the model, and cast before it"
            yield CompatibilityIssue(f"{name} does not take the {dtype} input '{tensor}'{where}", fix)
    for tensor in graph.outputs:
        dtype = graph.dtypes.get(tensor, "")
        if dtype and not takes(dtype, release):
            fix = "leave out the last Cast, and cast the answer on the host"
            yield CompatibilityIssue(f"{name} does not write the {dtype} output '{tensor}'", fix)


def cast_issue(node: OnnxNode, release: _Release, name: str) -> CompatibilityIssue | None:
    """Return why the release does not read a Cast's type; None if it does."""
    dtype = dtype_name(node.integer("to", 1))
    if takes(dtype, release):
        return None
    return CompatibilityIssue(f"{name} has no {dtype}", "cast to int32 or float32 in its place")


def write_float_inputs(proto: Any, inputs: tuple[FloatInput, ...]) -> None:
    """Give these inputs the type float32, in place; the casts that read them stay."""
    from onnx import TensorProto

    names = {one.name for one in inputs}
    for value in proto.graph.input:
        if value.name in names:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.graph.value_info[:]  # of tensors between an input and its Cast


def float_samples(samples: Calibration | None, inputs: tuple[FloatInput, ...]) -> Calibration | None:
    """Return the samples with the values of these inputs as float32."""
    if samples is None or not inputs:
        return samples
    names = {one.name for one in inputs}
    return type(samples)(
        {name: values.astype("float32") if name in names else values for name, values in samples.samples.items()}
    )


def _is_cast_at_once(name: str, graph: OnnxGraph) -> bool:
    return all(node.op == "Cast" for node in graph.nodes if name in node.inputs)


def _obstacle(name: str, graph: OnnxGraph) -> OnnxNode | None:
    """Return the first node that computes on an input before it is cast; None if there is none."""
    waiting, seen = [name], set()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        for node in graph.nodes:
            if tensor not in node.inputs or node.op == "Cast":
                continue
            if node.op not in _MOVERS or node.inputs.index(tensor) != 0 or tensor in graph.outputs:
                return node
            waiting.extend(name for name in node.outputs if name)
    return None
