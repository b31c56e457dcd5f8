"""Operators that a release of TensorRT lacks, written in older ones that it has; what they compute stays the same.

ONNX defines many operators as functions of older ones, and the formula in its schema takes their place. For the
normalisations that formula takes the variance as E[x²] − E[x]², which loses its digits in fp16: they are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from converters.onnx_tidy import all_nodes, opset_of
from runtimes.arrays import Array

_StepOf = tuple[str, Sequence[str], str]  # operator, inputs, output

_ROUNDS = 4  # the formula of one operator (Gelu) holds another (CastLike)
_AXES_AS_INPUT = 18  # the opset from which ReduceMean takes its axes as an input
_SCALE_FOR_CHANNELS = 21  # the opset from which GroupNormalization has a scale for each channel, not each group


def rewritten(proto: Any, is_lacking: Callable[[str], bool]) -> Any:
    """The `onnx.ModelProto` without the operators that `is_lacking` names, as far as they can be written otherwise.

    Nodes of which too little is known (no rank, a second output that is used) stay as they are.
    """
    import onnx
    from onnx.inliner import inline_selected_functions

    for _ in range(_ROUNDS):
        names = {node.op_type for node in all_nodes(proto.graph) if not node.domain and is_lacking(node.op_type)}
        if not names:
            break
        proto = onnx.shape_inference.infer_shapes(proto)  # formulas depend on the types of what goes in
        _write_own(proto)
        functions = [("", name) for name in sorted(names - set(_OWN))]
        if functions:
            _say_defaults(proto, {name for _, name in functions})
            proto = inline_selected_functions(proto, functions, inline_schema_functions=True)
    return proto


def _say_defaults(proto: Any, names: set[str]) -> None:
    """Write out what a node leaves at its default: the formula that takes its place would know nothing of it."""
    from onnx import defs

    for node in (one for one in all_nodes(proto.graph) if one.op_type in names and not one.domain):
        said = {attribute.name for attribute in node.attribute}
        for name, known in defs.get_schema(node.op_type, opset_of(proto), "").attributes.items():
            if name not in said and known.default_value.name:
                node.attribute.append(known.default_value)


def _write_own(proto: Any) -> None:
    """Each node of `_OWN` in the main graph gives way to what its writer makes of it."""
    writer = _Writer(proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        write = _OWN.get(node.op_type)
        made = write(writer, node) if write and not node.domain else None
        proto.graph.node.extend(made if made is not None else [node])


class _Writer:
    """Makes nodes and constants in one model."""

    def __init__(self, proto: Any) -> None:
        self._graph = proto.graph
        self.opset = opset_of(proto)
        values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}
        self._types |= {tensor.name: None for tensor in proto.graph.initializer}

    def rank(self, name: str) -> int | None:
        """The number of a tensor's dimensions."""
        known = self._types.get(name)
        return len(known.shape.dim) if known is not None and known.HasField("shape") else None

    def dtype(self, name: str) -> Any | None:
        """A float tensor's numpy dtype; None for others, and where it is unknown."""
        from onnx import helper

        known = self._types.get(name)
        if known is None or not known.elem_type:
            return None
        dtype = helper.tensor_dtype_to_np_dtype(known.elem_type)
        return dtype if dtype.kind == "f" else None

    def constant(self, name: str, value: Array) -> str:
        """An initializer of this name, which is its own."""
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def mean(self, source: str, axes: Sequence[int], result: str) -> Any:
        """ReduceMean that keeps the reduced dimensions."""
        from onnx import helper

        if self.opset < _AXES_AS_INPUT:
            return helper.make_node("ReduceMean", [source], [result], axes=list(axes))
        given = self.constant(f"{result}/axes", np.array(axes, np.int64))
        return helper.make_node("ReduceMean", [source, given], [result])


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _chain(prefix: str, steps: Sequence[_StepOf]) -> Iterator[Any]:
    """Nodes (operator, inputs, output); names that begin with / are inside the operator that is written otherwise."""
    from onnx import helper

    def full(name: str) -> str:
        return f"{prefix}{name}" if name.startswith("/") else name

    for op, inputs, output in steps:
        yield helper.make_node(op, [full(name) for name in inputs], [full(output)])


def _normal(writer: _Writer, source: str, axes: Sequence[int], result: str, below: Sequence[_StepOf]) -> Iterator[Any]:
    """(x − mean) ÷ /below, which the steps `below` make of /variance, as /normal."""
    yield writer.mean(source, axes, f"{result}/mean")
    yield from _chain(result, [("Sub", [source, "/mean"], "/centred"), ("Mul", ["/centred", "/centred"], "/squares")])
    yield writer.mean(f"{result}/squares", axes, f"{result}/variance")
    yield from _chain(result, [*below, ("Div", ["/centred", "/below"], "/normal")])


def _layer_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """(x − mean) ÷ √(variance + ε) × scale + bias over the axes from `axis` on."""
    source, result = node.input[0], node.output[0]
    axis, rank, dtype = _attribute(node, "axis", -1), writer.rank(source), writer.dtype(source)
    if dtype is None or rank is None or len(node.output) > 1:
        return None
    epsilon = writer.constant(f"{result}/epsilon", np.array(_attribute(node, "epsilon", 1e-5), dtype))
    below = [("Add", ["/variance", epsilon], "/shifted"), ("Sqrt", ["/shifted"], "/below")]
    bias = node.input[2] if len(node.input) > 2 else ""
    scaled = [("Mul", ["/normal", node.input[1]], "/scaled" if bias else result)]
    if bias:
        scaled.append(("Add", ["/scaled", bias], result))
    return [*_normal(writer, source, range(axis % rank, rank), result, below), *_chain(result, scaled)]


def _mean_variance_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """(x − mean) ÷ (√variance + 1e-9), the constant as in ONNX's formula."""
    source, result = node.input[0], node.output[0]
    dtype = writer.dtype(source)
    if dtype is None:
        return None
    epsilon = writer.constant(f"{result}/epsilon", np.array(1e-9, dtype))
    below = [("Sqrt", ["/variance"], "/deviation"), ("Add", ["/deviation", epsilon], "/below")]
    made = list(_normal(writer, source, _attribute(node, "axes", [0, 2, 3]), result, below))
    made[-1].output[0] = result
    return made


def _group_normalization(writer: _Writer, node: Any) -> list[Any] | None:
    """Each group as one channel of an InstanceNormalization, then scale and bias."""
    from onnx import helper

    source, scale, bias = node.input
    result = node.output[0]
    groups, rank, dtype = _attribute(node, "num_groups", 0), writer.rank(source), writer.dtype(source)
    if dtype is None or rank is None:
        return None
    for_channels = writer.opset >= _SCALE_FOR_CHANNELS
    ones = writer.constant(f"{result}/ones", np.ones(groups, dtype)) if for_channels else scale
    zeros = writer.constant(f"{result}/zeros", np.zeros(groups, dtype)) if for_channels else bias
    grouped = writer.constant(f"{result}/grouped", np.array([0, groups, -1], np.int64))
    normalise = helper.make_node(
        "InstanceNormalization",
        [f"{result}/groups", ones, zeros],
        [f"{result}/normal"],
        epsilon=_attribute(node, "epsilon", 1e-5),
    )
    whole = "/whole" if for_channels else result
    made = [
        *_chain(result, [("Shape", [source], "/shape"), ("Reshape", [source, grouped], "/groups")]),
        normalise,
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
        made += _chain(result, steps)
    return made


def _reciprocal(writer: _Writer, node: Any) -> list[Any] | None:
    """1 ÷ x."""
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
