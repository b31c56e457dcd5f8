"""Rewrite operators that a release of TensorRT lacks in older ones that it has, with the same results.

ONNX defines many operators as functions of older ones, and they are replaced by the function in their schema. For
normalizations that function computes the variance as E[x²] − E[x]², which loses precision in fp16, so they have their
own formulas here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from converters.onnx.cleanup import all_nodes
from converters.onnx.opset import opset_of
from runtimes.arrays import Array

_StepOf = tuple[str, Sequence[str], str]  # operator, inputs, output

_ROUNDS = 4  # the function of an operator (Gelu) may contain another one (CastLike)
_AXES_AS_INPUT = 18  # the first opset in which ReduceMean takes its axes as an input
_SCALE_FOR_CHANNELS = 21  # the first opset in which GroupNormalization has a scale per channel, not per group


def rewrite(proto: Any, is_lacking: Callable[[str], bool]) -> Any:
    """Return the `onnx.ModelProto` with the operators selected by `is_lacking` rewritten, where possible.

    Nodes that cannot be rewritten (unknown rank, second output in use) are left as they are.
    """
    import onnx
    from onnx.inliner import inline_selected_functions

    for _ in range(_ROUNDS):
        names = {node.op_type for node in all_nodes(proto.graph) if not node.domain and is_lacking(node.op_type)}
        if not names:
            break
        proto = onnx.shape_inference.infer_shapes(proto)  # the formulas depend on the input types
        _write_own(proto)
        functions = [("", name) for name in sorted(names - set(_OWN))]
        if functions:
            _write_defaults(proto, {name for _, name in functions})
            proto = inline_selected_functions(proto, functions, inline_schema_functions=True)
    return proto


def _write_defaults(proto: Any, names: set[str]) -> None:
    """Add omitted attributes with their default values, since the inlined functions do not know the defaults."""
    from onnx import defs

    for node in (one for one in all_nodes(proto.graph) if one.op_type in names and not one.domain):
        present = {attribute.name for attribute in node.attribute}
        for name, known in defs.get_schema(node.op_type, opset_of(proto), "").attributes.items():
            if name not in present and known.default_value.name:
                node.attribute.append(known.default_value)


def _write_own(proto: Any) -> None:
    """Replace the nodes in the main graph that have a formula in `_OWN`."""
    writer = _Writer(proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        write = _OWN.get(node.op_type)
        replacement = write(writer, node) if write and not node.domain else None
        proto.graph.node.extend(replacement if replacement is not None else [node])


class _Writer:
    """Creates nodes and constants in one model."""

    def __init__(self, proto: Any) -> None:
        self._graph = proto.graph
        self.opset = opset_of(proto)
        values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}
        self._types |= {tensor.name: None for tensor in proto.graph.initializer}

    def rank(self, name: str) -> int | None:
        """Return the number of a tensor's dimensions; None if unknown."""
        known = self._types.get(name)
        return len(known.shape.dim) if known is not None and known.HasField("shape") else None

    def dtype(self, name: str) -> Any | None:
        """Return a float tensor's numpy dtype; None if it is another type or unknown."""
        from onnx import helper

        known = self._types.get(name)
        if known is None or not known.elem_type:
            return None
        dtype = helper.tensor_dtype_to_np_dtype(known.elem_type)
        return dtype if dtype.kind == "f" else None

    def constant(self, name: str, value: Array) -> str:
        """Add an initializer. Returns its name."""
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def mean(self, source: str, axes: Sequence[int], result: str) -> Any:
        """Create a ReduceMean that keeps the reduced dimensions."""
        from onnx import helper

        if self.opset < _AXES_AS_INPUT:
            return helper.make_node("ReduceMean", [source], [result], axes=list(axes))
        axes_name = self.constant(f"{result}/axes", np.array(axes, np.int64))
        return helper.make_node("ReduceMean", [source, axes_name], [result])


def attribute_of(node: Any, name: str, default: Any) -> Any:
    """Return an attribute of a node, or the default if it has none."""
    from onnx import helper

    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _chain(prefix: str, steps: Sequence[_StepOf]) -> Iterator[Any]:
    """Create nodes from (operator, inputs, output). Names that begin with / are local and get `prefix`."""
    from onnx import helper

    def full(name: str) -> str:
        return f"{prefix}{name}" if name.startswith("/") else name

    for op, inputs, output in steps:
        yield helper.make_node(op, [full(name) for name in inputs], [full(output)])


def _normal(writer: _Writer, source: str, axes: Sequence[int], result: str, below: Sequence[_StepOf]) -> Iterator[Any]:
    """Create nodes for /normal = (x − mean) ÷ /below; the steps `below` compute /below from /variance."""
    yield writer.mean(source, axes, f"{result}/mean")
    yield from _chain(
        result, [("Sub", [source, "/mean"], "/centered"), ("Mul", ["/centered", "/centered"], "/squares")]
    )
    yield writer.mean(f"{result}/squares", axes, f"{result}/variance")
    yield from _chain(result, [*below, ("Div", ["/centered", "/below"], "/normal")])


def _layer_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """Create nodes for (x − mean) ÷ √(variance + ε) × scale + bias over the axes from `axis` on."""
    source, result = node.input[0], node.output[0]
    axis, rank, dtype = attribute_of(node, "axis", -1), writer.rank(source), writer.dtype(source)
    if dtype is None or rank is None or len(node.output) > 1:
        return None
    epsilon = writer.constant(f"{result}/epsilon", np.array(attribute_of(node, "epsilon", 1e-5), dtype))
    below = [("Add", ["/variance", epsilon], "/shifted"), ("Sqrt", ["/shifted"], "/below")]
    bias = node.input[2] if len(node.input) > 2 else ""
    scaled = [("Mul", ["/normal", node.input[1]], "/scaled" if bias else result)]
    if bias:
        scaled.append(("Add", ["/scaled", bias], result))
    return [*_normal(writer, source, range(axis % rank, rank), result, below), *_chain(result, scaled)]


def _mean_variance_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """Create nodes for (x − mean) ÷ (√variance + 1e-9), with the constant of ONNX's formula."""
    source, result = node.input[0], node.output[0]
    dtype = writer.dtype(source)
    if dtype is None:
        return None
    epsilon = writer.constant(f"{result}/epsilon", np.array(1e-9, dtype))
    below = [("Sqrt", ["/variance"], "/deviation"), ("Add", ["/deviation", epsilon], "/below")]
    nodes = list(_normal(writer, source, attribute_of(node, "axes", [0, 2, 3]), result, below))
    nodes[-1].output[0] = result
    return nodes


def _group_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """Create an InstanceNormalization with each group as one channel, then scale and bias."""
    from onnx import helper

    source, scale, bias = node.input
    result = node.output[0]
    groups, rank, dtype = attribute_of(node, "num_groups", 0), writer.rank(source), writer.dtype(source)
    if dtype is None or rank is None:
        return None
    for_channels = writer.opset >= _SCALE_FOR_CHANNELS
    ones = writer.constant(f"{result}/ones", np.ones(groups, dtype)) if for_channels else scale
    zeros = writer.constant(f"{result}/zeros", np.zeros(groups, dtype)) if for_channels else bias
    grouped = writer.constant(f"{result}/grouped", np.array([0, groups, -1], np.int64))
    normalize = helper.make_node(
        "InstanceNormalization",
        [f"{result}/groups", ones, zeros],
        [f"{result}/normal"],
        epsilon=attribute_of(node, "epsilon", 1e-5),
    )
    whole = "/whole" if for_channels else result
    nodes = [
        *_chain(result, [("Shape", [source], "/shape"), ("Reshape", [source, grouped], "/groups")]),
        normalize,
        *_chain(result, [("Reshape", ["/normal", "/shape"], whole)]),
    ]
    if for_channels:
        channels = writer.constant(f"{result}/channels", np.array([-1] + [1] * (rank - 2), np.int64))
        steps = [
            ("Reshape", [scale, channels], "/scale"),
            ("Reshape", [bias, channels], "/bias"),
            ("Mul", ["/whole", "/scale"], "/scaled"),
            ("Add", ["/scaled", "/bias"], result),
        ]
        nodes += _chain(result, steps)
    return nodes


def _reciprocal(writer: _Writer, node: Any) -> list[Any] | None:
    """Create nodes for 1 ÷ x."""
    dtype = writer.dtype(node.input[0])
    if dtype is None:
        return None
    one = writer.constant(f"{node.output[0]}/one", np.array(1, dtype))
    return list(_chain(node.output[0], [("Div", [one, node.input[0]], node.output[0])]))


_OWN: dict[str, Callable[[_Writer, Any], list[Any] | None]] = {
    "MeanVarianceNormalization": _mean_variance_normalization,
    "LayerNormalization": _layer_normalization,
    "GroupNormalization": _group_normalization,
    "Reciprocal": _reciprocal,
}
