"""Give the inputs and outputs of a TFLite network dtypes that an engine takes, by an operator at each of these ends.

The network between them computes as before, on the same numbers: an operator either moves the zero point or casts
whole numbers to a wider dtype.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from typing import Any

from converters.tflite.reader import DTYPES
from converters.tflite.writer import operator_code

# A tensor with a scale: dtype → the dtype that has the same steps, and what is added to the zero point.
_SAME_STEPS = {"int8": ("uint8", 128), "int16": ("int32", 0)}
# Any other: dtype → the dtype that holds its values. Of those in _NARROWER, it holds all but very large ones.
_SAME_VALUES = {
    **dict.fromkeys(("int8", "int16", "uint16", "uint32", "int64"), "int32"),
    **dict.fromkeys(("float16", "float64"), "float32"),
    "bool": "uint8",
}
_NARROWER = ("uint32", "int64")


def with_end_dtypes(network: Any, dtypes: Collection[str]) -> tuple[str, ...]:
    """Change the inputs and outputs of the main graph of a `ModelT` to `dtypes`, where one of them holds their values.

    Names, places and shapes stay. Others are left as they are. Returns notes for the user.
    """
    graph = network.subgraphs[0]
    inputs, ends = [int(place) for place in graph.inputs], [int(place) for place in (*graph.inputs, *graph.outputs)]
    before: list[Any] = []
    after: list[Any] = []
    notes = []
    for place in dict.fromkeys(ends):
        outer = graph.tensors[place]
        dtype, has_scale = DTYPES[outer.type], _has_scale(outer)
        wanted, shift = _SAME_STEPS.get(dtype, ("", 0)) if has_scale else (_SAME_VALUES.get(dtype, ""), 0)
        if dtype in dtypes or wanted not in dtypes:
            continue
        inner = copy(outer)
        inner.name = (outer.name or b"") + f"_{dtype}".encode()
        graph.tensors.append(inner)
        _replace(graph, place, len(graph.tensors) - 1)
        outer.type, outer.buffer = DTYPES.index(wanted), 0
        if has_scale:
            outer.quantization = copy(outer.quantization)
            outer.quantization.zeroPoint = [int(_first(outer.quantization.zeroPoint)) + shift]
        pair = (place, len(graph.tensors) - 1) if place in inputs else (len(graph.tensors) - 1, place)
        (before if place in inputs else after).append(_operator(network, *pair, has_scale=has_scale))
        if dtype in _NARROWER:
            name = (outer.name or b"").decode()
            notes.append(
                f"'{name}' is {wanted} in place of {dtype}: numbers that {wanted} does not hold come out wrong"
            )
    graph.operators = [*before, *graph.operators, *after]
    return tuple(notes)


def _has_scale(tensor: Any) -> bool:
    known = tensor.quantization
    return known is not None and known.scale is not None and len(known.scale) == 1


def _first(values: Any) -> int:
    return values[0] if values is not None and len(values) else 0


def _replace(graph: Any, place: int, other: int) -> None:
    """Let every operator that reads or writes the tensor at `place` take the `other` one."""
    for operator in graph.operators:
        for name in ("inputs", "outputs"):
            indices = getattr(operator, name)
            if indices is not None:
                setattr(operator, name, [other if int(index) == place else int(index) for index in indices])


def _operator(network: Any, source: int, target: int, *, has_scale: bool) -> Any:
    """Return an operator that computes the tensor `target` from `source`."""
    from ai_edge_litert import schema_py_generated as schema

    operator, kinds = schema.OperatorT(), schema.BuiltinOperator
    operator.inputs, operator.outputs = [source], [target]
    operator.opcodeIndex = operator_code(network, kinds.QUANTIZE if has_scale else kinds.CAST)
    if not has_scale:
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.CastOptions, schema.CastOptionsT()
        tensors = network.subgraphs[0].tensors
        operator.builtinOptions.inDataType = tensors[source].type
        operator.builtinOptions.outDataType = tensors[target].type
    return operator
