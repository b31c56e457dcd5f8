"""An ONNX graph at an older opset, where every node means the same there: what ONNX's own converter leaves undone.

That one has no way down for operators whose newer version merely takes more types ("No Adapter From Version $14 for
Mul"). Here a node may go down when what it says can be said in the older version: attributes that the older one lacks
stand at their defaults, and axes given as a constant become an attribute again.
"""

from __future__ import annotations

from typing import Any

from converters.onnx_tidy import all_nodes, opset_of

_NEWEST_IR = 8  # of the ONNX releases that write opset 17 and older; parsers of that age know no newer one
_OLD_OPSET = 17


class CannotLower(Exception):  # noqa: N818 - what happened; it is told as a RefusedError
    """A node says something that the older opset has no words for."""


def lowered(proto: Any, opset: int) -> Any:
    """A copy of the `onnx.ModelProto` at `opset`; CannotLower, naming the node, where it cannot be."""
    import onnx

    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    constants = _constants(copy.graph)
    for node in all_nodes(copy.graph):
        if not node.domain:
            _lower(node, constants, opset_of(proto), opset)
    next(entry for entry in copy.opset_import if entry.domain in ("", "ai.onnx")).version = opset
    if opset <= _OLD_OPSET:
        copy.ir_version = min(copy.ir_version, _NEWEST_IR)
    _drop_unused(copy.graph)
    try:
        onnx.checker.check_model(copy, full_check=True)  # types and shapes too
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CannotLower(str(error).strip().splitlines()[0][:200]) from error
    return copy


def _lower(node: Any, constants: dict[str, Any], found: int, opset: int) -> None:
    from onnx import defs

    try:
        before, after = (defs.get_schema(node.op_type, version, "") for version in (found, opset))
    except defs.SchemaError:
        raise CannotLower(f"{_called(node)} is newer than opset {opset}") from None
    if before.since_version == after.since_version:
        return
    if "axes" in after.attributes and "axes" not in before.attributes:
        _axes_to_attribute(node, constants)
    for attribute in list(node.attribute):
        if attribute.name not in after.attributes:
            _drop_default(node, attribute, before)
    if len(node.input) > after.max_input or len(node.output) > after.max_output:
        raise CannotLower(f"{_called(node)} has more inputs or outputs than in opset {opset}")


def _axes_to_attribute(node: Any, constants: dict[str, Any]) -> None:
    from onnx import helper, numpy_helper

    name = node.input[1] if len(node.input) > 1 else ""
    if name and name not in constants:
        raise CannotLower(f"the axes of {_called(node)} are computed")
    axes = numpy_helper.to_array(constants[name]).tolist() if name else []
    if not axes and any(one.name == "noop_with_empty_axes" and one.i for one in node.attribute):
        raise CannotLower(f"{_called(node)} reduces nothing")
    del node.input[1:]
    if axes:
        node.attribute.append(helper.make_attribute("axes", axes))


def _drop_default(node: Any, attribute: Any, schema: Any) -> None:
    from onnx import helper

    default = schema.attributes[attribute.name].default_value if attribute.name in schema.attributes else None
    is_default = default is not None and default.type == attribute.type
    if attribute.name != "noop_with_empty_axes" and not (  # it says something of empty axes alone
        is_default and helper.get_attribute_value(default) == helper.get_attribute_value(attribute)
    ):
        raise CannotLower(f"{_called(node)} has {attribute.name}, which is new")
    node.attribute.remove(attribute)


def _constants(graph: Any) -> dict[str, Any]:
    """Tensors by name, of initializers and of Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in all_nodes(graph):
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return found


def _drop_unused(graph: Any) -> None:
    """Axes that became attributes are no tensors any more."""
    used = {name for node in all_nodes(graph) for name in node.input} | {value.name for value in graph.output}
    for tensor in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(tensor)
    for node in [one for one in graph.node if one.op_type == "Constant" and one.output[0] not in used]:
        graph.node.remove(node)


def _called(node: Any) -> str:
    return f"{node.op_type} '{node.name or node.output[0]}'"
