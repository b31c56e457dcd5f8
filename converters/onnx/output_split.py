"""Split the outputs of an ONNX model at the last Concat, so that each part can have its own scale."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from converters.library_calls import loading
from runtimes.artifact import Join

_MAX_PARTS = 16
_MOVERS = ("Identity", "Transpose")  # what may stand between the Concat and the output


def split_onnx(model: Path, outputs: Collection[str], path: Path) -> tuple[Join, ...]:
    """Write `model` to `path` with those of `outputs` that end in a Concat split into its inputs; returns the joins.

    Nothing is written if there is none.
    """
    with loading(model, "ONNX"):
        import onnx
        from onnx import shape_inference

        proto = onnx.load(model)
        ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in shape_inference.infer_shapes(proto).graph.value_info
        }
    ranks.update({value.name: len(value.type.tensor_type.shape.dim) for value in proto.graph.output})
    joins = [_split(proto.graph, value, ranks) for value in list(proto.graph.output) if value.name in outputs]
    found = tuple(join for join in joins if join is not None)
    if found:
        onnx.save(proto, path)
    return found


def _split(graph: Any, value: Any, ranks: dict[str, int]) -> Join | None:
    """Replace one output by the inputs of its Concat, each moved like the whole output."""
    import onnx

    writers = {name: node for node in graph.node for name in node.output}
    movers: list[Any] = []
    node = writers.get(value.name)
    while node is not None and node.op_type in _MOVERS:
        movers.insert(0, node)
        node = writers.get(node.input[0])
    if node is None or node.op_type != "Concat" or not 1 < len(node.input) <= _MAX_PARTS:
        return None
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    if axis < 0:
        axis += ranks.get(node.output[0], ranks.get(value.name, 0))
    for mover in movers:
        order = _order(mover, ranks.get(value.name, 0))
        axis = order.index(axis) if order else axis
    names = tuple(f"{value.name}_part{place}" for place in range(len(node.input)))
    for name, tensor in zip(names, node.input, strict=True):
        for place, mover in enumerate(movers):
            copy = onnx.NodeProto()
            copy.CopyFrom(mover)
            copy.name = f"{name}_move{place}"
            copy.input[0], copy.output[0] = tensor, f"{name}_moved{place}"
            tensor = copy.output[0]
            graph.node.append(copy)
        graph.node.append(onnx.helper.make_node("Identity", [tensor], [name], name=name))
    place = [one.name for one in graph.output].index(value.name)
    kept = [*graph.output[:place], *(_part_info(value, name) for name in names), *graph.output[place + 1 :]]
    del graph.output[:]
    graph.output.extend(kept)
    _prune(graph, {value.name})
    return Join(value.name, axis, names)


def _order(mover: Any, rank: int) -> list[int]:
    """Return the order of axes of a Transpose; empty for an Identity."""
    if mover.op_type != "Transpose":
        return []
    given = [list(one.ints) for one in mover.attribute if one.name == "perm"]
    return given[0] if given else list(range(rank))[::-1]


def _part_info(value: Any, name: str) -> Any:
    """Return a part's type; its shape is left to shape inference."""
    import onnx

    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = value.type.tensor_type.elem_type
    return info


def _prune(graph: Any, dead: set[str]) -> None:
    """Remove the nodes that only computed `dead` tensors, which nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
        unused = [node for node in graph.node if dead.intersection(node.output) and not read.intersection(node.output)]
        if not unused:
            return
        for node in unused:
            dead.update(node.input)
            graph.node.remove(node)
