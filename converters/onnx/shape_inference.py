"""Infer the tensor shapes of an ONNX graph that are needed to count multiply-adds.

Shapes that the file declares are taken as they are. A free dimension counts as 1, as a batch does. If there is no rule
for an operator, the shapes that depend on it stay unknown.
"""

from __future__ import annotations

from math import prod

from converters.onnx.graph import OnnxGraph, OnnxNode

Sizes = tuple[int, ...]

_UNARY_OPERATORS = """
    Relu LeakyRelu PRelu Clip Sigmoid Tanh HardSigmoid HardSwish Elu Selu Softplus Softsign Gelu Mish Erf Exp Log Sqrt
    Abs Neg Identity Dropout Softmax LogSoftmax BatchNormalization InstanceNormalization LayerNormalization
    GroupNormalization LRN LpNormalization Cast QuantizeLinear DequantizeLinear ThresholdedRelu
"""
_SAME_AS_INPUT = frozenset(_UNARY_OPERATORS.split())
_BROADCAST = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where"))


def infer_sizes(graph: OnnxGraph) -> dict[str, Sizes]:
    """Return the sizes of every tensor for which they are declared or can be inferred."""
    known = {name: constant.shape for name, constant in graph.constants.items()}
    for name, shape in graph.shapes.items():
        known[name] = tuple(size if isinstance(size, int) else 1 for size in shape)
    for node in graph.nodes:
        if node.outputs and node.outputs[0] not in known:
            sizes = _sizes(node, graph, known)
            if sizes is not None:
                known[node.outputs[0]] = sizes
    return known


def _sizes(node: OnnxNode, graph: OnnxGraph, known: dict[str, Sizes]) -> Sizes | None:
    first = known.get(graph.input(node, 0))
    if first is None:
        return None
    if node.op in _SAME_AS_INPUT:
        return first
    if node.op in _BROADCAST:
        return _broadcast([known.get(name) for name in node.inputs])
    if node.op in ("Conv", "MaxPool", "AveragePool"):
        return _windowed_sizes(node, first, known.get(graph.input(node, 1)))
    if node.op in ("GlobalAveragePool", "GlobalMaxPool"):
        return first[:2] + (1,) * (len(first) - 2)
    if node.op == "Concat":
        return _concatenated_sizes(node, [known.get(name) for name in node.inputs])
    if node.op in ("Gemm", "MatMul"):
        return _product(node, first, known.get(graph.input(node, 1)))
    return _rearranged_sizes(node, graph, first)


def _rearranged_sizes(node: OnnxNode, graph: OnnxGraph, first: Sizes) -> Sizes | None:
    if node.op == "Flatten":
        axis = node.integer("axis", 1)
        return prod(first[:axis]), prod(first[axis:])
    if node.op == "Transpose":
        order = node.integers("perm") or tuple(reversed(range(len(first))))
        return tuple(first[axis] for axis in order) if sorted(order) == list(range(len(first))) else None
    if node.op in ("Squeeze", "Unsqueeze", "ReduceMean", "ReduceMax", "ReduceSum"):
        return _along_axes(node, graph, first)
    shape = graph.constants.get(graph.input(node, 1))
    return _reshaped_sizes(first, shape.integers()) if node.op == "Reshape" and shape else None


def _along_axes(node: OnnxNode, graph: OnnxGraph, first: Sizes) -> Sizes | None:
    """Return the sizes after dimensions of size 1 are added or removed, or dimensions are reduced."""
    second = graph.input(node, 1)
    constant = graph.constants.get(second)
    given = node.integers("axes") or (constant.integers() if constant else ())
    if (second and not given) or (given and not first):
        return None  # the axes are computed, or there are none
    if node.op == "Unsqueeze":
        rank = len(first) + len(given)
        added = {axis % rank for axis in given}
        rest = iter(first)
        return tuple(1 if axis in added else next(rest) for axis in range(rank)) if len(added) == len(given) else None
    if node.op == "Squeeze":
        axes = {axis % len(first) for axis in given} if given else {i for i, size in enumerate(first) if size == 1}
    elif given or not node.integer("noop_with_empty_axes", 0):
        axes = {axis % len(first) for axis in given} if given else set(range(len(first)))
    else:
        axes = set()
    if node.op != "Squeeze" and node.integer("keepdims", 1):
        return tuple(1 if axis in axes else size for axis, size in enumerate(first))
    return tuple(size for axis, size in enumerate(first) if axis not in axes)


def _windowed_sizes(node: OnnxNode, first: Sizes, weights: Sizes | None) -> Sizes | None:
    """Return the output sizes [batch, channels, *space] of a convolution or pooling."""
    if node.op == "Conv" and (weights is None or len(weights) != len(first)):
        return None
    kernel = node.integers("kernel_shape") or (weights or ())[2:]
    space = len(first) - 2
    strides, dilations = node.integers("strides") or (1,) * space, node.integers("dilations") or (1,) * space
    pads = node.integers("pads") or (0,) * (2 * space)
    if not len(kernel) == len(strides) == len(dilations) == space or len(pads) != 2 * space or 0 in strides:
        return None
    automatic = node.word("auto_pad", "NOTSET")
    sizes = []
    for i, size in enumerate(first[2:]):
        reach = dilations[i] * (kernel[i] - 1) + 1
        if automatic.startswith("SAME"):
            sizes.append(-(-size // strides[i]))
        else:
            around = size + pads[i] + pads[i + space] - reach
            sizes.append((-(-around // strides[i]) if node.integer("ceil_mode", 0) else around // strides[i]) + 1)
    channels = weights[0] if node.op == "Conv" and weights else first[1]
    return (first[0], channels, *(max(size, 0) for size in sizes))


def _product(node: OnnxNode, first: Sizes, second: Sizes | None) -> Sizes | None:
    if second is None or len(first) < 2 or len(second) < 2:
        return None
    if node.op == "Gemm":
        rows = first[1] if node.integer("transA", 0) else first[0]
        return rows, second[0] if node.integer("transB", 0) else second[1]
    stack = _broadcast([first[:-2], second[:-2]])
    return None if stack is None else (*stack, first[-2], second[-1])


def _broadcast(shapes: list[Sizes | None]) -> Sizes | None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    rank = max(map(len, known), default=0)
    return tuple(max(column) for column in zip(*((1,) * (rank - len(one)) + one for one in known), strict=True))


def _concatenated_sizes(node: OnnxNode, shapes: list[Sizes | None]) -> Sizes | None:
    known = [shape for shape in shapes if shape]
    if len(known) != len(shapes) or not known or len({len(shape) for shape in known}) != 1:
        return None
    axis = node.integer("axis", 0) % len(known[0])
    return (*known[0][:axis], sum(shape[axis] for shape in known), *known[0][axis + 1 :])


def _reshaped_sizes(first: Sizes, wanted: Sizes) -> Sizes | None:
    sizes = [first[i] if size == 0 and i < len(first) else size for i, size in enumerate(wanted)]
    rest = prod(size for size in sizes if size != -1)
    return tuple(prod(first) // rest if size == -1 and rest else size for size in sizes)


_COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


def macs_of_nodes(graph: OnnxGraph) -> list[int] | None:
    """Return the multiply-adds of every node, in order. Returns None if a shape that they need is unknown."""
    sizes = infer_sizes(graph)
    counts = [_macs(node, graph, sizes) if node.op in _COUNTED else 0 for node in graph.nodes]
    known = [count for count in counts if count is not None]
    return known if len(known) == len(counts) else None


def _macs(node: OnnxNode, graph: OnnxGraph, sizes: dict[str, tuple[int, ...]]) -> int | None:
    first = sizes.get(graph.input(node, 0))
    second = sizes.get(graph.input(node, 3 if node.op.startswith("QLinear") else 1))
    output = sizes.get(node.outputs[0]) if node.outputs else None
    if node.op == "ConvTranspose":
        return None if first is None or second is None else prod(first) * prod(second[1:])
    if output is None or second is None:
        return None
    if node.op in ("Conv", "QLinearConv", "ConvInteger"):
        return prod(output) * prod(second[1:])
    inner = second[-1 if node.op == "Gemm" and node.integer("transB", 0) else -2 if len(second) > 1 else 0 :][:1]
    return prod(output) * prod(inner)
