"""Pools whose padding is a Pad of its own, for converters that would pad otherwise.

MaxPool they would pad with minus infinity, and a range that holds it leaves nothing of a tensor in int8. Behind what is
never negative a zero pads as well; elsewhere the value at the edge does: every window that reaches over an edge holds
the values at that edge, too. AveragePool with `count_include_pad` is an average with zeros; TFLite's leaves them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.onnx_tidy import opset_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")
_AS_ITS_INPUTS = ("MaxPool", "AveragePool", "Concat", "Add", "Mul", "Identity", "Dropout")
_DONE_BY_PAD = ("pads", "ceil_mode", "count_include_pad")
_PADS_AS_INPUT = 11  # the opset from which Pad takes them so


def pad_before_pooling(model: Any) -> bool:
    """Put a Pad before every padded pool of an `onnx.ModelProto`, in place; whether there was one.

    A pool stays as it is where it is dilated, where `auto_pad` places its padding, and where its size is not known; an
    AveragePool also where it counts no padding, or where its size is rounded up, which it does not count.
    """
    pools = [node for node in model.graph.node if node.op_type == "MaxPool" or _averages_zeros(node)]
    if not pools:
        return False
    sizes = _sizes(model)
    writers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = False
    for pool in pools:
        pads = _all_pads(pool, sizes.get(pool.input[0], ()))
        if any(pads):
            with_zeros = pool.op_type == "AveragePool" or _is_never_negative(pool.input[0], writers, constants)
            mode = "constant" if with_zeros else "edge"
            _insert(model, pool, pads, mode)
            changed = True
    return changed


def _averages_zeros(node: Any) -> bool:
    if node.op_type != "AveragePool":
        return False
    given = _attributes(node)
    return bool(given.get("count_include_pad", 0)) and not given.get("ceil_mode", 0)


def _sizes(model: Any) -> dict[str, list[int]]:
    """The spatial sizes of tensors as far as they are known; 0 stands for a free one."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] for value in values}


def _all_pads(pool: Any, sizes: Sequence[int]) -> list[int]:
    """The pads before and behind each axis, with what rounding up (`ceil_mode`) reads beyond them."""
    given = _attributes(pool)
    kernel = given["kernel_shape"]
    rank = len(kernel)
    pads = list(given.get("pads", [0] * 2 * rank))
    is_dilated = any(step != 1 for step in given.get("dilations", ()))
    if is_dilated or given.get("auto_pad", b"NOTSET") != b"NOTSET" or len(pool.output) > 1:
        return []
    if given.get("ceil_mode", 0):
        if len(sizes) != rank or 0 in sizes:
            return []
        for axis, stride in enumerate(given.get("strides", [1] * rank)):
            pads[rank + axis] += _beyond(sizes[axis] + pads[axis], pads[rank + axis], kernel[axis], stride)
    return pads


def _beyond(size: int, behind: int, kernel: int, stride: int) -> int:
    """How far the last window reaches beyond the padded axis, when its place is rounded up; it starts before `size`."""
    last = min(-(-(size + behind - kernel) // stride) * stride, (size - 1) // stride * stride)
    return max(0, last + kernel - size - behind)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_never_negative(name: str, writers: Mapping[str, Any], constants: Mapping[str, Any]) -> bool:
    node = writers.get(name)
    if node is None:
        return False
    if node.op_type == "Clip":
        return _least(node, constants) >= 0
    if node.op_type in _AS_ITS_INPUTS:
        return all(_is_never_negative(one, writers, constants) for one in node.input)
    return node.op_type in _NEVER_NEGATIVE


def _least(clip: Any, constants: Mapping[str, Any]) -> float:
    from onnx import numpy_helper

    if len(clip.input) > 1 and clip.input[1] in constants:
        return float(numpy_helper.to_array(constants[clip.input[1]]))
    return float(_attributes(clip).get("min", -1.0))


def _insert(model: Any, pool: Any, pads: Sequence[int], mode: str) -> None:
    from onnx import helper

    source, padded = pool.input[0], f"{pool.output[0]}/padded"
    rank = len(pads) // 2
    every = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
    if opset_of(model) < _PADS_AS_INPUT:
        pad = helper.make_node("Pad", [source], [padded], name=padded, mode=mode, pads=every)
    else:
        pad = helper.make_node("Pad", [source, f"{padded}/pads"], [padded], name=padded, mode=mode)
        model.graph.initializer.append(helper.make_tensor(f"{padded}/pads", 7, [len(every)], every))
    model.graph.node.insert(list(model.graph.node).index(pool), pad)
    pool.input[0] = padded
    kept = [attribute for attribute in pool.attribute if attribute.name not in _DONE_BY_PAD]
    del pool.attribute[:]
    pool.attribute.extend(kept)
