"""Describe the operations of a TFLite graph for `converters.proof.origins`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from converters.proof.origins import OriginReader, Step, head_layers
from converters.tflite.reader import Operator, Tensor, read_tflite
from runtimes.arrays import Array

_PASS = frozenset(("DEQUANTIZE", "QUANTIZE", "CAST"))
_RESHAPING = frozenset(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"))
_WIDTHS = {"LOGISTIC": 1.0, "SOFTMAX": 1.0, "TANH": 2.0, "SIN": 2.0, "COS": 2.0}
_LABEL_OPERATORS = """
    ARG_MAX ARG_MIN WHERE EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL LOGICAL_OR LOGICAL_AND LOGICAL_NOT
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
"""
_LABELS = frozenset(_LABEL_OPERATORS.split())
_MAX_CONSTANT_BYTES = 1 << 18


class TfliteOrigins(OriginReader):
    """The operations of the main graph of a `.tflite` file; tensors are named by their index."""

    def __init__(self, path: Path) -> None:
        self._graph = read_tflite(path).graphs[0]
        self.outputs = tuple(str(index) for index in self._graph.outputs)
        self._writers = {index: operator for operator in self._graph.operators for index in operator.outputs}

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """See `OriginReader`."""
        return tuple(size if isinstance(size, int) else 1 for size in self._graph.tensors[int(tensor)].spec.shape)

    def step(self, tensor: str) -> Step | None:
        """See `OriginReader`."""
        operator = self._writers.get(int(tensor))
        if operator is None:
            return None
        first = tuple(str(index) for index in operator.inputs[:1])
        if operator.name in _PASS:
            return Step(inputs=first, move=lambda arrays: arrays[0])
        if operator.name in _WIDTHS:
            return Step(width=_WIDTHS[operator.name])
        if operator.name in _LABELS or (operator.name == "TOPK_V2" and int(tensor) != operator.outputs[0]):
            return Step(labels=True)
        if operator.name in _RESHAPING:
            wanted = self.shape(tensor) or ()
            return Step(inputs=first, move=lambda arrays: arrays[0].reshape(wanted))
        if operator.name in ("MUL", "ADD", "SUB") and len(operator.inputs) == 2:
            return self._arithmetic(operator)
        return self._moving(operator, int(tensor), first) or Step()

    def name_of(self, tensor: str) -> str:
        """Return the tensor's name in the file, which is the name of the layer to keep."""
        return self._graph.tensors[int(tensor)].spec.name

    def _arithmetic(self, operator: Operator) -> Step:
        constants = [self._values(index) for index in operator.inputs]
        for place, values in enumerate(constants):
            if values is not None:
                factor = np.abs(values) if operator.name == "MUL" else np.ones(values.shape, np.float32)
                return Step(inputs=(str(operator.inputs[1 - place]),), scale=partial(_scale, factor))
        return Step()

    def _moving(self, operator: Operator, tensor: int, first: tuple[str, ...]) -> Step | None:
        options = operator.builtin_options
        if operator.name == "CONCATENATION":
            axis = options.number(0, "i") if options else 0
            return Step(
                inputs=tuple(str(index) for index in operator.inputs), move=lambda arrays: np.concatenate(arrays, axis)
            )
        if operator.name == "TRANSPOSE":
            order = self._integers(operator, 1)
            return Step(inputs=first, move=lambda arrays: arrays[0].transpose(order)) if order else None
        if operator.name == "SLICE":
            begin, sizes = self._integers(operator, 1), self._integers(operator, 2)
            return (
                Step(inputs=first, move=lambda arrays: _slice_box(arrays[0], begin, sizes)) if begin and sizes else None
            )
        if operator.name == "STRIDED_SLICE":
            return self._strided(operator, tensor, first)
        if operator.name in ("SPLIT", "SPLIT_V"):
            return self._split(operator, tensor)
        return None

    def _strided(self, operator: Operator, tensor: int, first: tuple[str, ...]) -> Step | None:
        begin, end, steps = (self._integers(operator, place) for place in (1, 2, 3))
        options = operator.builtin_options
        masks = [options.number(place, "i") if options else 0 for place in range(5)]
        if not (begin and end and steps) or masks[2] or masks[3]:
            return None
        index = tuple(
            slice(None if masks[0] >> i & 1 else begin[i], None if masks[1] >> i & 1 else end[i], steps[i])
            for i in range(len(begin))
        )
        wanted = self.shape(str(tensor)) or ()
        return Step(inputs=first, move=lambda arrays: arrays[0][index].reshape(wanted))

    def _split(self, operator: Operator, tensor: int) -> Step | None:
        """Return the step of SPLIT (axis first) or SPLIT_V (the sizes and the axis after the input)."""
        is_plain = operator.name == "SPLIT"
        axis = self._integers(operator, 0 if is_plain else 2)
        if axis is None:
            return None
        lengths = [(self.shape(str(index)) or ())[axis[0]] for index in operator.outputs]
        start = sum(lengths[: operator.outputs.index(tensor)])
        stop = start + lengths[operator.outputs.index(tensor)]
        moved = str(operator.inputs[1 if is_plain else 0])
        return Step(inputs=(moved,), move=lambda arrays: np.take(arrays[0], range(start, stop), axis=axis[0]))

    def _integers(self, operator: Operator, place: int) -> tuple[int, ...] | None:
        if place >= len(operator.inputs) or operator.inputs[place] < 0:
            return None
        values = _constant(self._graph.tensors[operator.inputs[place]], "int32")
        return None if values is None else tuple(int(value) for value in values.reshape(-1))

    def _values(self, index: int) -> Array | None:
        """Return the real values of a constant; None for anything else."""
        tensor = self._graph.tensors[index]
        for dtype in ("float32", "int8", "uint8", "int16"):
            values = _constant(tensor, dtype)
            if values is not None:
                from runtimes.tensors import dequantize

                return dequantize(values, tensor.spec.quantization)
        return None


def tflite_head_layers(model: Path) -> list[tuple[str, ...]]:
    """Return growing sets of layers at the outputs of a model, by their names; its int8 model has the same."""
    reader = TfliteOrigins(model)
    return [tuple(map(reader.name_of, layers)) for layers in head_layers(reader)]


def _constant(tensor: Tensor, dtype: str) -> Array | None:
    if tensor.spec.dtype != dtype or not 0 < tensor.constant_bytes <= _MAX_CONSTANT_BYTES:
        return None
    shape = tuple(size for size in tensor.spec.shape if isinstance(size, int))
    values = np.frombuffer(bytes(tensor.data.view), dtype)
    return values.reshape(shape) if values.size == int(np.prod(shape)) else None


def _scale(factor: Array, widths: Sequence[Array]) -> Array:
    return np.asarray(widths[0] * factor)


def _slice_box(values: Array, begin: Sequence[int], sizes: Sequence[int]) -> Array:
    box = (slice(start, None if size < 0 else start + size) for start, size in zip(begin, sizes, strict=True))
    return values[tuple(box)]
