"""Downgrade an ONNX graph to an older opset in which every node has the same meaning.

This covers cases that ONNX's own converter does not: it has no adapter for operators whose newer version merely accepts
more types ("No Adapter From Version $14 for Mul"). Here a node is downgraded if the older version can express it:
attributes that the older version lacks must have their default value, and constant axes become an attribute again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.onnx.cleanup import all_nodes
from converters.onnx.opset import opset_of

if TYPE_CHECKING:
    from onnx import TensorProto

_NEWEST_IR = 8  # of the ONNX releases that write opset 17 and older; parsers of that age support no newer one
_OLD_OPSET = 17
_PER_AXIS = ("Softmax", "LogSoftmax", "Hardmax")
_PER_AXIS_SINCE = 13


class OpsetDowngradeError(Exception):
    """A node cannot be expressed in the older opset."""


def lower_opset(proto: Any, opset: int) -> Any:
    """Return a copy of the `onnx.ModelProto` at `opset`. Raises OpsetDowngradeError, naming the node, if it cannot."""
    import onnx

    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    constants = _constants(copy.graph)
    for node in all_nodes(copy.graph):
        if not node.domain:
            _lower(node, constants, opset_of(proto), opset)
            _fill_required(node, copy.graph, opset)
    next(entry for entry in copy.opset_import if entry.domain in ("", "ai.onnx")).version = opset
    if opset <= _OLD_OPSET:
        copy.ir_version = min(copy.ir_version, _NEWEST_IR)
    _drop_unused(copy.graph)
    try:
        onnx.checker.check_model(copy, full_check=True)  # types and shapes too
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OpsetDowngradeError(str(error).strip().splitlines()[0][:200]) from error
    return copy


def _lower(node: Any, constants: dict[str, TensorProto], found: int, opset: int) -> None:
    from onnx import defs

    try:
        before, after = (defs.get_schema(node.op_type, version, "") for version in (found, opset))
    except defs.SchemaError:
        raise OpsetDowngradeError(f"{_describe(node)} is newer than opset {opset}") from None
    if before.since_version == after.since_version:
        return
    if node.op_type in _PER_AXIS and opset < _PER_AXIS_SINCE <= found and not _is_over_last_axis(node):
        raise OpsetDowngradeError(f"{_describe(node)} flattens the axes after its own in opset {opset}")
    if "axes" in after.attributes and "axes" not in before.attributes:
        _axes_to_attribute(node, constants)
    for attribute in list(node.attribute):
        if attribute.name not in after.attributes:
            _drop_default(node, attribute, before)
    if len(node.input) > after.max_input or len(node.output) > after.max_output:
        raise OpsetDowngradeError(f"{_describe(node)} has more inputs or outputs than in opset {opset}")


def _fill_required(node: Any, graph: Any, opset: int) -> None:
    """Give empty tensors to inputs that may be omitted only in the newer opset, such as the region of Resize."""
    from onnx import TensorProto, defs, helper

    schema = defs.get_schema(node.op_type, opset, "")
    for place, name in enumerate(node.input):
        option = schema.inputs[min(place, len(schema.inputs) - 1)].option
        if not name and node.op_type == "Resize" and option == defs.OpSchema.FormalParameterOption.Single:
            node.input[place] = f"{node.output[0]}/no_{schema.inputs[place].name}"
            graph.initializer.append(helper.make_tensor(node.input[place], TensorProto.FLOAT, [0], []))


def _is_over_last_axis(node: Any) -> bool:
    """Return whether a softmax says that its axis is the last, which means the same before opset 13 as since then."""
    return any(one.name == "axis" and one.i == -1 for one in node.attribute)


def _axes_to_attribute(node: Any, constants: dict[str, TensorProto]) -> None:
    from onnx import helper, numpy_helper

    name = node.input[1] if len(node.input) > 1 else ""
    if name and name not in constants:
        raise OpsetDowngradeError(f"the axes of {_describe(node)} are computed")
    axes = numpy_helper.to_array(constants[name]).tolist() if name else []
    if not axes and any(one.name == "noop_with_empty_axes" and one.i for one in node.attribute):
        raise OpsetDowngradeError(f"{_describe(node)} reduces no axes")
    del node.input[1:]
    if axes:
        node.attribute.append(helper.make_attribute("axes", axes))


def _drop_default(node: Any, attribute: Any, schema: Any) -> None:
    from onnx import helper

    default = schema.attributes[attribute.name].default_value if attribute.name in schema.attributes else None
    is_default = default is not None and default.type == attribute.type
    if attribute.name != "noop_with_empty_axes" and not (  # which matters only for empty axes
        is_default and helper.get_attribute_value(default) == helper.get_attribute_value(attribute)
    ):
        raise OpsetDowngradeError(f"{_describe(node)} uses {attribute.name}, which the older opset lacks")
    node.attribute.remove(attribute)


def _constants(graph: Any) -> dict[str, TensorProto]:
    """Return the tensors of initializers and Constant nodes, by name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in all_nodes(graph):
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    return constants


def _drop_unused(graph: Any) -> None:
    """Remove constants that are no longer used, such as axes that became attributes."""
    used = {name for node in all_nodes(graph) for name in node.input} | {value.name for value in graph.output}
    for tensor in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(tensor)
    for node in [one for one in graph.node if one.op_type == "Constant" and one.output[0] not in used]:
        graph.node.remove(node)


def _describe(node: Any) -> str:
    return f"{node.op_type} '{node.name or node.output[0]}'"
