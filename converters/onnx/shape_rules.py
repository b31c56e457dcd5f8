"""How each ONNX operator decides the sizes of its outputs, by https://onnx.ai/onnx/operators (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod

from converters.onnx.graph import OnnxNode
from converters.onnx.shape_values import Values, as_sizes, asked_shape

Sizes = tuple[int, ...]


class UnknownSizeError(Exception):
    """The sizes of an output depend on something that is not known before the first inference."""


@dataclass(frozen=True, kw_only=True)
class KnownInputs:
    """A node, and what is known of its inputs.

    sizes: The sizes of each input; None where they are unknown.
    values: The contents of each input that is small and constant, or computed from sizes; None for all others.
    """

    node: OnnxNode
    sizes: Sequence[Sizes | None]
    values: Sequence[Values | None]

    def __getitem__(self, place: int) -> Sizes:
        """Return the sizes of an input. Raises UnknownSizeError."""
        found = self.sizes[place] if place < len(self.sizes) else None
        if found is None:
            raise UnknownSizeError
        return found

    def has(self, place: int) -> bool:
        """Return whether an optional input is given."""
        return place < len(self.node.inputs) and bool(self.node.inputs[place])

    def value(self, place: int) -> Values:
        """Return the contents of an input. Raises UnknownSizeError."""
        found = self.values[place] if place < len(self.values) else None
        if found is None:
            raise UnknownSizeError
        return found

    def integers(self, name: str, place: int) -> Sizes:
        """Return a list that is an attribute in old operator sets and an input in new ones; empty if it is missing."""
        return as_sizes(self.value(place)) if self.has(place) else self.node.integers(name)


def output_sizes(known: KnownInputs) -> Sequence[Sizes]:
    """Return the sizes of a node's first outputs. Raises UnknownSizeError, also for a node that is not valid."""
    rule = RULES.get(known.node.op)
    if rule is None:
        raise UnknownSizeError
    try:
        found = rule(known)
    except (IndexError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UnknownSizeError from error
    outputs = found if isinstance(found, list) else [found]
    if any(size < 0 for sizes in outputs for size in sizes):
        raise UnknownSizeError
    return outputs


def broadcast(shapes: Sequence[Sizes]) -> Sizes:
    """Return the common sizes of tensors that are broadcast as in numpy. Raises ValueError if they do not fit."""
    rank = max(map(len, shapes), default=0)
    columns = zip(*((1,) * (rank - len(one)) + one for one in shapes), strict=True)
    return tuple(_common(set(column)) for column in columns)


def _common(sizes: set[int]) -> int:
    others = sizes - {1}
    if len(others) > 1:
        raise ValueError("these sizes do not fit")
    return others.pop() if others else 1


def _same(known: KnownInputs) -> Sizes:
    return known[0]


def _all_broadcast(known: KnownInputs) -> Sizes:
    return broadcast([known[place] for place in range(len(known.node.inputs))])


def _axis(known: KnownInputs, default: int) -> int:
    return range(len(known[0]))[known.node.integer("axis", default)]


# Windows


def _pooled(known: KnownInputs) -> list[Sizes]:
    sizes = _windowed(known, known.node.integers("kernel_shape"), known[0][1])
    return [sizes, sizes]


def _convolved(weights: int) -> Callable[[KnownInputs], Sizes]:
    """Return the rule of a convolution whose weights are the input `weights`."""

    def rule(known: KnownInputs) -> Sizes:
        if len(known[weights]) != len(known[0]):
            raise UnknownSizeError
        return _windowed(known, known.node.integers("kernel_shape") or known[weights][2:], known[weights][0])

    return rule


def _windowed(known: KnownInputs, kernel: Sizes, channels: int) -> Sizes:
    """Return the output sizes [batch, channels, *space] of a convolution or pooling."""
    node, first = known.node, known[0]
    space = len(first) - 2
    strides, dilations = node.integers("strides") or (1,) * space, node.integers("dilations") or (1,) * space
    pads = node.integers("pads") or (0,) * (2 * space)
    if not len(kernel) == len(strides) == len(dilations) == space or node.integer("channels_last", 0):
        raise UnknownSizeError
    sizes, rounds_up = [], node.integer("ceil_mode", 0)
    for size, length, stride, dilation, before, after in zip(
        first[2:], kernel, strides, dilations, pads[:space], pads[space:], strict=True
    ):
        if node.word("auto_pad", "NOTSET").startswith("SAME"):
            sizes.append(-(-size // stride))
            continue
        around = size + before + after - dilation * (length - 1) - 1
        steps = -(-around // stride) if rounds_up else around // stride
        # A window that would begin in the padding behind the end is left out.
        sizes.append(steps if rounds_up and steps * stride >= size + before else max(steps + 1, 0))
    return (first[0], channels, *sizes)


def _transposed_convolution(known: KnownInputs) -> Sizes:
    node, first, weights = known.node, known[0], known[1]
    space = len(first) - 2
    strides, dilations = node.integers("strides") or (1,) * space, node.integers("dilations") or (1,) * space
    pads, extra = node.integers("pads") or (0,) * (2 * space), node.integers("output_padding") or (0,) * space
    sizes = node.integers("output_shape")[-space:]
    if not sizes and node.word("auto_pad", "NOTSET").startswith("SAME"):
        sizes = tuple(size * stride for size, stride in zip(first[2:], strides, strict=True))
    sizes = sizes or tuple(
        strides[i] * (first[2 + i] - 1) + extra[i] + dilations[i] * (weights[2 + i] - 1) + 1 - pads[i] - pads[i + space]
        for i in range(space)
    )
    return (first[0], weights[1] * node.integer("group", 1), *sizes)


def _global_pooled(known: KnownInputs) -> Sizes:
    if known.node.integer("channels_last", 0):
        raise UnknownSizeError
    return known[0][:2] + (1,) * (len(known[0]) - 2)


# Products


def _matrix_product(first: int, second: int) -> Callable[[KnownInputs], Sizes]:
    def rule(known: KnownInputs) -> Sizes:
        left, right = known[first], known[second]
        rows, columns = left[-2:-1] if len(left) > 1 else (), right[-1:] if len(right) > 1 else ()
        return (*broadcast([left[:-2], right[:-2]]), *rows, *columns)

    return rule


def _gemm(known: KnownInputs) -> Sizes:
    rows = known[0][1 if known.node.integer("transA", 0) else 0]
    return rows, known[1][0 if known.node.integer("transB", 0) else 1]


def _einsum(known: KnownInputs) -> Sizes:
    terms, arrow, result = known.node.word("equation", "").replace(" ", "").partition("->")
    if not arrow or "." in terms:
        raise UnknownSizeError
    letters: dict[str, int] = {}
    for place, term in enumerate(terms.split(",")):
        letters.update(zip(term, known[place], strict=True))
    return tuple(letters.get(letter, 1) for letter in result)


def _recurrent(known: KnownInputs) -> list[Sizes]:
    """Return the sizes of all steps, and those of the last states, of an LSTM, GRU or RNN."""
    node = known.node
    directions = 2 if node.word("direction", "forward") == "bidirectional" else 1
    units = node.integer("hidden_size", 0) or known[2][-1]
    if node.integer("layout", 0):
        batch, steps = known[0][:2]
        return [(batch, steps, directions, units), *[(batch, directions, units)] * 2]
    steps, batch = known[0][:2]
    return [(steps, directions, batch, units), *[(directions, batch, units)] * 2]


# Rearrangements


def _transposed(known: KnownInputs) -> Sizes:
    first = known[0]
    order = known.node.integers("perm") or tuple(reversed(range(len(first))))
    if sorted(order) != list(range(len(first))):
        raise UnknownSizeError
    return tuple(first[axis] for axis in order)


def _flattened(known: KnownInputs) -> Sizes:
    axis = known.node.integer("axis", 1)
    return prod(known[0][:axis]), prod(known[0][axis:])


def _reshaped(known: KnownInputs) -> Sizes:
    first, wanted = known[0], known.integers("shape", 1)
    keeps = not known.node.integer("allowzero", 0)
    sizes = [first[place] if size == 0 and keeps else size for place, size in enumerate(wanted)]
    rest = prod(size for size in sizes if size != -1)
    return tuple(prod(first) // rest if size == -1 else size for size in sizes)


def _squeezed(known: KnownInputs) -> Sizes:
    first, given = known[0], known.integers("axes", 1)
    axes = {axis % len(first) for axis in given} if given else {i for i, size in enumerate(first) if size == 1}
    return tuple(size for axis, size in enumerate(first) if axis not in axes)


def _unsqueezed(known: KnownInputs) -> Sizes:
    given, rest = known.integers("axes", 1), iter(known[0])
    rank = len(known[0]) + len(given)
    added = {axis % rank for axis in given}
    if len(added) != len(given):
        raise UnknownSizeError
    return tuple(1 if axis in added else next(rest) for axis in range(rank))


def _reduced(known: KnownInputs) -> Sizes:
    node, first, given = known.node, known[0], known.integers("axes", 1)
    axes = {axis % len(first) for axis in given} if given else set(range(len(first)))
    if not given and node.integer("noop_with_empty_axes", 0):
        axes = set()
    return _without(first, axes, bool(node.integer("keepdims", 1)))


def _searched(known: KnownInputs) -> Sizes:
    return _without(known[0], {_axis(known, 0)}, bool(known.node.integer("keepdims", 1)))


def _without(first: Sizes, axes: set[int], keeps: bool) -> Sizes:
    if keeps:
        return tuple(1 if axis in axes else size for axis, size in enumerate(first))
    return tuple(size for axis, size in enumerate(first) if axis not in axes)


def _concatenated(known: KnownInputs) -> Sizes:
    shapes, axis = [known[place] for place in range(len(known.node.inputs))], _axis(known, 0)
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _split(known: KnownInputs) -> list[Sizes]:
    first, axis, count = known[0], _axis(known, 0), len(known.node.outputs)
    parts = known.integers("split", 1)
    if not parts:
        each = -(-first[axis] // count)
        parts = (*(each,) * (count - 1), first[axis] - each * (count - 1))
    return [(*first[:axis], part, *first[axis + 1 :]) for part in parts]


def _sliced(known: KnownInputs) -> Sizes:
    first, starts, ends = known[0], known.integers("starts", 1), known.integers("ends", 2)
    axes = known.integers("axes", 3) or tuple(range(len(starts)))
    steps = known.integers("steps", 4) or (1,) * len(starts)
    sizes = list(first)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        sizes[axis] = len(range(*slice(start, end, step).indices(first[axis])))
    return tuple(sizes)


def _padded(known: KnownInputs) -> Sizes:
    pads = known.integers("pads", 1)
    axes = as_sizes(known.value(3)) if known.has(3) else tuple(range(len(known[0])))
    sizes = list(known[0])
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        sizes[axis] += before + after
    return tuple(sizes)


def _resized(known: KnownInputs) -> Sizes:
    first, node = known[0], known.node
    if node.word("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnknownSizeError
    axes = node.integers("axes") or tuple(range(len(first)))
    sizes = list(first)
    if known.has(3):
        new: Sequence[float] = as_sizes(known.value(3))
    else:  # the scales are the second input of Upsample, and of Resize before operator set 11
        scales = known.value(2 if known.has(2) else 1).tolist()
        new = [first[axis] * scale for axis, scale in zip(axes, scales, strict=True)]
    for axis, size in zip(axes, new, strict=True):
        sizes[axis] = floor(size)
    return tuple(sizes)


def _gathered(known: KnownInputs) -> Sizes:
    axis = _axis(known, 0)
    return (*known[0][:axis], *known[1], *known[0][axis + 1 :])


def _gathered_by_index(known: KnownInputs) -> Sizes:
    return (*known[1][:-1], *known[0][known.node.integer("batch_dims", 0) + known[1][-1] :])


def _depth_to_space(known: KnownInputs) -> Sizes:
    batch, channels, height, width = known[0]
    block = known.node.integer("blocksize", 1)
    return batch, channels // block**2, height * block, width * block


def _space_to_depth(known: KnownInputs) -> Sizes:
    batch, channels, height, width = known[0]
    block = known.node.integer("blocksize", 1)
    return batch, channels * block**2, height // block, width // block


def _largest(known: KnownInputs) -> list[Sizes]:
    (count,) = known.integers("k", 1) or (known.node.integer("k", 1),)
    axis = _axis(known, -1)
    sizes = (*known[0][:axis], count, *known[0][axis + 1 :])
    return [sizes, sizes]


def _tiled(known: KnownInputs) -> Sizes:
    return tuple(size * times for size, times in zip(known[0], as_sizes(known.value(1)), strict=True))


def _sampled(known: KnownInputs) -> Sizes:
    return (*known[0][:2], *known[1][1:-1])


def _one_hot(known: KnownInputs) -> Sizes:
    rank = len(known[0]) + 1
    axis = range(rank)[known.node.integer("axis", -1)]
    return (*known[0][:axis], *as_sizes(known.value(1)), *known[0][axis:])


def _counted(known: KnownInputs) -> Sizes:
    start, end, step = (known.value(place).item() for place in range(3))
    return (max(ceil((end - start) / step), 0),)


def _quantized_concat(known: KnownInputs) -> Sizes:
    """Return the sizes of a QLinearConcat: scale and zero point of the output, then each input with its own."""
    shapes = [known[place] for place in range(2, len(known.node.inputs), 3)]
    axis = range(len(shapes[0]))[known.node.integer("axis", 0)]
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


_SAME_AS_INPUT = """
    Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum
    DequantizeLinear Elu Erf Exp EyeLike Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
    MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear RMSNormalization Reciprocal Relu Round ScatterElements
    ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    com.microsoft.QLinearLeakyRelu com.microsoft.QLinearSigmoid com.microsoft.QLinearSoftmax
"""
_BROADCAST = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod
    Mul Or Pow Sub Sum Where Xor
"""
_REDUCED = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: Mapping[str, Callable[[KnownInputs], Sizes | list[Sizes]]] = {
    **dict.fromkeys(_SAME_AS_INPUT.split(), _same),
    "Dropout": lambda known: [known[0], known[0]],  # the second is the mask
    **dict.fromkeys(_BROADCAST.split(), _all_broadcast),
    **{f"Reduce{word}": _reduced for word in _REDUCED.split()},
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pooled),
    **dict.fromkeys(("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"), _global_pooled),
    **dict.fromkeys(("Conv", "ConvInteger"), _convolved(1)),
    "QLinearConv": _convolved(3),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matrix_product(0, 1)),
    "QLinearMatMul": _matrix_product(0, 3),
    "Gemm": _gemm,
    "Einsum": _einsum,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    "Transpose": _transposed,
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    **dict.fromkeys(("ArgMax", "ArgMin"), _searched),
    "Concat": _concatenated,
    "Split": _split,
    "Slice": _sliced,
    "Pad": _padded,
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    "Gather": _gathered,
    "GatherElements": lambda known: known[1],
    "GatherND": _gathered_by_index,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "TopK": _largest,
    "Expand": lambda known: broadcast([known[0], as_sizes(known.value(1))]),
    "Tile": _tiled,
    "GridSample": _sampled,
    "OneHot": _one_hot,
    "ConstantOfShape": lambda known: as_sizes(known.value(0)),
    "Range": _counted,
    "Shape": lambda known: (len(asked_shape(known.node, known[0])),),
    "Size": lambda _known: (),
    **dict.fromkeys(
        ("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul"), lambda known: broadcast([known[0], known[3]])
    ),
    "com.microsoft.QLinearConcat": _quantized_concat,
    "com.microsoft.QLinearGlobalAveragePool": _global_pooled,
    "com.microsoft.QLinearAveragePool": _pooled,
}
