"""Describe the operations of an ONNX graph for `converters.proof.origins`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from converters.onnx.graph import OnnxGraph, OnnxNode, read_onnx
from converters.onnx.shape_inference import infer_sizes
from converters.proof.origins import OriginReader, Step, UnknownOriginError
from runtimes.arrays import Array
from runtimes.errors import EdgeError

_MAX_CONSTANT = 1 << 16  # values of a constant factor
_MAX_RANK = 32
_PASS = frozenset(("Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"))
_WIDTHS = {"Sigmoid": 1.0, "Softmax": 1.0, "HardSigmoid": 1.0, "Tanh": 2.0, "Softsign": 2.0, "Sin": 2.0, "Cos": 2.0}
_LABEL_OPERATORS = """
    ArgMax ArgMin NonZero NonMaxSuppression Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsNaN IsInf
    Hardmax OneHot Unique
"""
_LABELS = frozenset(_LABEL_OPERATORS.split())
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
# Operators whose output's size depends on the values of their input, not on its size.
_DECIDING = frozenset(("NonZero", "NonMaxSuppression", "Compress", "Unique"))
# The same for these, if this input is not constant.
_BY_OPERAND = frozenset(("Slice", "Range", "Expand", "Tile", "Pad", "Resize", "ConstantOfShape", "TopK", "Loop"))

Move = Callable[[Sequence[Array]], Array]


class OnnxOrigins(OriginReader):
    """The operations of one `.onnx` file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._graph: OnnxGraph = read_onnx(path)
        self.outputs = tuple(self._graph.outputs)
        kinds = [self._graph.dtypes.get(name, "") for name in self._graph.inputs]
        kinds += [one.dtype for one in self._graph.constants.values()]
        self.is_exact = all(one.startswith(("int", "uint", "bool")) for one in kinds)
        self._writers = {name: node for node in self._graph.nodes for name in node.outputs if name}
        self._sizes: dict[str, tuple[int, ...]] | None = None
        self._inferred = False

    def step(self, tensor: str) -> Step | None:
        """See `OriginReader`."""
        node = self._writers.get(tensor)
        if node is None or node.op == "Constant":
            return None
        if node.op in _PASS:
            return Step(inputs=node.inputs[:1], move=_first)
        if node.op in _WIDTHS:
            return Step(width=_WIDTHS[node.op])
        if node.op in _LABELS or (node.op == "TopK" and tensor != node.outputs[0]):
            return Step(labels=True)
        if node.op in ("Mul", "Div", "Add", "Sub") and len(node.inputs) == 2:
            return self._arithmetic(node)
        return self._moving(node, tensor) or Step()

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """See `OriginReader`. Infers shapes without a library, and with onnx where that does not suffice."""
        if self._sizes is None:
            self._sizes = infer_sizes(self._graph)
        if tensor not in self._sizes and not self._inferred:
            self._inferred = True
            self._sizes = {**_infer_by_onnx(self._path), **self._sizes}
        return self._sizes.get(tensor)

    def written_with(self, tensor: str) -> str:
        """Return the first output of the node that writes the tensor, which is the name of the layer to keep."""
        return self._writers[tensor].outputs[0]

    def _arithmetic(self, node: OnnxNode) -> Step:
        """Return the step for a constant: factors scale the range, summands keep it; gates of 0 to 1 multiply."""
        first, second = (self._graph.constants.get(name) for name in node.inputs)
        if first is None and second is None:
            return Step(inputs=node.inputs, scale=_product) if node.op == "Mul" else Step()
        known, moving = (second, node.inputs[0]) if second is not None else (first, node.inputs[1])
        assert known is not None
        if node.op in ("Add", "Sub"):
            shape = known.shape
            return Step(inputs=(moving,), scale=lambda widths: widths[0] + np.zeros(shape, np.float32))
        values = np.array(known.reals(_MAX_CONSTANT), np.float32)
        if not values.size or (node.op == "Div" and second is None):
            return Step()
        factor = np.abs(values.reshape(known.shape))
        if node.op == "Div":
            factor = 1 / np.where(factor == 0, np.nan, factor)
        return Step(inputs=(moving,), scale=lambda widths: widths[0] * factor)

    def _moving(self, node: OnnxNode, tensor: str) -> Step | None:
        """Return the step of an operator that only moves elements; None for another, or if an operand is unknown."""
        if node.op == "Concat":
            axis = node.integer("axis", 0)
            return Step(inputs=node.inputs, move=lambda arrays: np.concatenate(arrays, axis=axis))
        if node.op == "Transpose":
            order = node.integers("perm") or None
            return Step(inputs=node.inputs[:1], move=lambda arrays: arrays[0].transpose(order))
        if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            return Step(inputs=node.inputs[:1], move=lambda arrays: arrays[0].reshape(self._wanted(tensor)))
        if node.op == "Slice":
            return self._slice(node)
        if node.op == "Split":
            return self._split(node, tensor)
        if node.op == "Gather":
            places = self._integers(node, 1)
            if places is None:
                return None
            chosen = places[0] if self._graph.constants[node.inputs[1]].shape == () else np.array(places)
            axis = node.integer("axis", 0)
            return Step(inputs=node.inputs[:1], move=lambda arrays: np.take(arrays[0], chosen, axis=axis))
        return None

    def _wanted(self, tensor: str) -> tuple[int, ...]:
        shape = self.shape(tensor)
        if shape is None:
            raise UnknownOriginError
        return shape

    def _slice(self, node: OnnxNode) -> Step | None:
        starts = self._integers(node, 1) or node.integers("starts")
        ends = self._integers(node, 2) or node.integers("ends")
        axes = self._integers(node, 3) or node.integers("axes") or tuple(range(len(starts)))
        steps = self._integers(node, 4) or (1,) * len(starts)
        if not starts or not len(starts) == len(ends) == len(axes) == len(steps):
            return None

        def cut(arrays: Sequence[Array]) -> Array:
            index = [slice(None)] * arrays[0].ndim
            for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
                index[axis] = slice(start, end if end >= -arrays[0].shape[axis] else None, step)
            return arrays[0][tuple(index)]

        return Step(inputs=node.inputs[:1], move=cut)

    def _split(self, node: OnnxNode, tensor: str) -> Step:
        axis, place = node.integer("axis", 0), node.outputs.index(tensor)
        sizes = self._integers(node, 1) or node.integers("split")

        def cut(arrays: Sequence[Array]) -> Array:
            total = arrays[0].shape[axis]
            each = -(-total // len(node.outputs))
            lengths = sizes or (each,) * len(node.outputs)
            start = sum(lengths[:place])
            return np.take(arrays[0], range(start, min(start + lengths[place], total)), axis=axis)

        return Step(inputs=node.inputs[:1], move=cut)

    def _integers(self, node: OnnxNode, place: int) -> tuple[int, ...] | None:
        constant = self._graph.constants.get(self._graph.input(node, place))
        return constant.integers() if constant is not None else None


def with_deciding_node(error: EdgeError, model: Path, model_format: str) -> EdgeError:
    """Return the error about an output of changing size with the node that causes it; any other error unchanged."""
    output = error.details.get("uneven_output")
    if output is None or model_format != "onnx":
        return error
    node = deciding_node(model, str(output))
    if node is None:
        return error
    details = {**error.details, "node": node.name, "operator": node.op}
    return type(error)(f"{error.message}: node '{node.name}' ({node.op}) decides it", error.hint, details)


def random_node(model: Path) -> str | None:
    """Return the first node that draws random numbers, in words; None if there is none."""
    node = next((node for node in read_onnx(model).nodes if node.op in _RANDOM), None)
    return f"node '{node.name or node.outputs[0]}' ({node.op})" if node is not None else None


def deciding_node(model: Path, output: str) -> OnnxNode | None:
    """Return the nearest node before `output` whose output has another size for other values; None if unknown."""
    graph = read_onnx(model)
    writers = {name: node for node in graph.nodes for name in node.outputs if name}
    waiting, seen, perhaps = [output], {output}, None
    for tensor in waiting:
        node = writers.get(tensor)
        if node is None:
            continue
        if node.op in _DECIDING:
            return node
        if perhaps is None and node.op in _BY_OPERAND and not all(map(graph.is_constant, node.inputs[1:])):
            perhaps = node
        waiting += [name for name in node.inputs if name and name not in seen]
        seen.update(node.inputs)
    return perhaps


def sizes_by_value(model: Path, output: str) -> bool:
    """Return whether an operator such as NonZero sizes the output by the values of its input."""
    node = deciding_node(model, output)
    return node is not None and node.op in _DECIDING


def _first(arrays: Sequence[Array]) -> Array:
    return arrays[0]


def _product(widths: Sequence[Array]) -> Array:
    """Multiply ranges of width 1, which are those of sigmoids; others are unknown."""
    both = widths[0] * widths[1]
    return np.where(both == 1, both, np.nan).astype(np.float32)


def _infer_by_onnx(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes that onnx infers; free dimensions are 1. Empty without onnx, or if it fails."""
    try:
        import onnx
        from onnx import shape_inference

        model = onnx.load(path, load_external_data=False)
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # the shapes are a convenience; errors about the file are the conversion's
        return {}
    found = {}
    for info in (*graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            found[info.name] = tuple(one.dim_value or 1 for one in info.type.tensor_type.shape.dim[:_MAX_RANK])
    return found
