"""Move the padding of pools into separate Pad nodes, for converters that would pad with other values.

They pad MaxPool with minus infinity, and a quantization range that includes it leaves no int8 values for the tensor.
If the input is never negative, zeros pad it equally well. Otherwise the edge value does: every window that crosses an
edge also contains the values at that edge. AveragePool with `count_include_pad` averages the zeros too, while TFLite's
leaves them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.onnx.opset import opset_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import NodeProto, TensorProto

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")
_AS_ITS_INPUTS = ("MaxPool", "AveragePool", "Concat", "Add", "Mul", "Identity", "Dropout")
_DONE_BY_PAD = ("pads", "ceil_mode", "count_include_pad")
_PADS_AS_INPUT = 11  # the first opset in which Pad takes its pads as an input


def pad_before_pooling(model: Any) -> bool:
    """Insert a Pad before every padded pool of an `onnx.ModelProto`, in place. Returns whether there was one.

    A pool is left unchanged if it is dilated, if it uses `auto_pad`, or if its size is unknown. An AveragePool is also
    left unchanged if it does not count padding, or if its size is rounded up (that part is not counted).
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
    attributes = _attributes(node)
    return bool(attributes.get("count_include_pad", 0)) and not attributes.get("ceil_mode", 0)


def _sizes(model: Any) -> dict[str, list[int]]:
    """Return the known spatial sizes of tensors by name; 0 means a free dimension."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] for value in values}


def _all_pads(pool: Any, sizes: Sequence[int]) -> list[int]:
    """Return the pads before and after each axis, including what rounding up (`ceil_mode`) reads beyond them."""
    attributes = _attributes(pool)
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    pads = list(attributes.get("pads", [0] * 2 * rank))
    is_dilated = any(step != 1 for step in attributes.get("dilations", ()))
    if is_dilated or attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or len(pool.output) > 1:
        return []
    if attributes.get("ceil_mode", 0):
        if len(sizes) != rank or 0 in sizes:
            return []
        for axis, stride in enumerate(attributes.get("strides", [1] * rank)):
            pads[rank + axis] += _beyond(sizes[axis] + pads[axis], pads[rank + axis], kernel[axis], stride)
    return pads


def _beyond(size: int, behind: int, kernel: int, stride: int) -> int:
    """Return how far the last window extends beyond the padded axis when its position is rounded up.

    The window starts before `size`.
    """
    last = min(-(-(size + behind - kernel) // stride) * stride, (size - 1) // stride * stride)
    return max(0, last + kernel - size - behind)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_never_negative(name: str, writers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> bool:
    node = writers.get(name)
    if node is None:
        return False
    if node.op_type == "Clip":
        return _least(node, constants) >= 0
    if node.op_type in _AS_ITS_INPUTS:
        return all(_is_never_negative(one, writers, constants) for one in node.input)
    return node.op_type in _NEVER_NEGATIVE


def _least(clip: Any, constants: Mapping[str, TensorProto]) -> float:
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
