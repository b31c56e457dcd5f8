"""Which operators the Edge TPU takes: each documented and each observed condition, on a model built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.check.report import ACCELERATOR
from tests.converters.edgetpu.graphs import (
    CHANNELS,
    Op,
    T,
    checked,
    concat,
    constant,
    conv,
    dense,
    depthwise,
    lstm,
    numbers,
    options,
    pool,
    prelu,
    reduction,
    resize,
    split,
    strided,
    weights,
)

CONDITIONS: dict[str, tuple[Op, str]] = {
    # A word of the reason, or nothing where it maps.
    "conv": (conv(), ""),
    "conv, dilated alike": (conv((2, 2)), ""),
    "conv, dilated unlike": (conv((2, 1)), "dilation is 2 in x and 1 in y"),
    "conv, dilated along its only axis": (conv((1, 3), weights(CHANNELS, 3, 1, CHANNELS)), ""),
    "conv, computed weights": (conv(filters=T((CHANNELS, 3, 3, CHANNELS))), "computed at run time"),
    "conv, computed bias": (conv(bias=T((CHANNELS,))), "computed at run time"),
    "conv, batch 4": (Op("CONV_2D", [T((4, 8, 8, 16)), weights(16, 1, 1, 16)], [T((4, 8, 8, 16))]), "4×8×8×16"),
    "depthwise, dilated": (depthwise((2, 2)), ""),
    "depthwise, dilated unlike": (depthwise((1, 3)), "dilation is 1 in x and 3 in y"),
    "depthwise, dilated along its only axis": (depthwise((4, 1), (1, 5)), ""),
    "max pool": (pool(0), ""),
    "max pool, fused": (pool(1), "fused"),
    "average pool": (pool(0, "AVERAGE_POOL_2D"), ""),
    "average pool, fused": (pool(3, "AVERAGE_POOL_2D"), "fused"),
    "dense": (dense(), ""),
    "dense, shuffled": (dense(weightsFormat=1), "shuffled"),
    "dense, many rows": (dense((7, 10)), "more than one dimension"),
    "dense, computed weights": (dense(filters=T((10, CHANNELS))), "computed at run time"),
    "concat": (concat([T(), T()]), ""),
    "concat, fused": (concat([T(), T()], fused=1), "fused"),
    "concat, zeros": (concat([T(), constant(-5, zero=-5)]), ""),
    "concat, other constant": (concat([T(), constant(3)]), "not a padding by zeros"),
    "concat, zeros and three inputs": (concat([T(), T(), constant(0)]), "not a padding by zeros"),
    "mean over x and y": (reduction("MEAN", 1, 2), ""),
    "mean over the batch": (reduction("MEAN", 0), "over the batch"),
    "mean over z": (reduction("MEAN", 3), ""),
    "mean over z, written from behind": (reduction("MEAN", -1, channels=6), "not a multiple of 4"),
    "mean over z of 6": (reduction("MEAN", 3, channels=6), "not a multiple of 4"),
    "sum": (reduction("SUM", 3, channels=6), ""),
    "sum over the batch": (reduction("SUM", -4), "over the batch"),
    "largest": (reduction("REDUCE_MAX", 1), ""),
    "smallest over the batch": (reduction("REDUCE_MIN", 0), "over the batch"),
    "softmax": (Op("SOFTMAX", [T((1, 16_384))], [T((1, 16_384))]), ""),
    "softmax, too long": (Op("SOFTMAX", [T((1, 16_385))], [T((1, 16_385))]), "16,385 elements"),
    "softmax, of rows": (Op("SOFTMAX", [T((1, 20, 4))], [T((1, 20, 4))]), "not a single vector"),
    "resize by 2": (resize("RESIZE_BILINEAR", 12, 24), ""),
    "resize by 4": (resize("RESIZE_NEAREST_NEIGHBOR", 8, 32), ""),
    "resize by 1": (resize("RESIZE_BILINEAR", 33, 33), ""),
    "resize down": (resize("RESIZE_BILINEAR", 64, 2), ""),
    "resize from 1×1": (resize("RESIZE_BILINEAR", 1, 33), "1×1 to 33×33"),
    "resize by 15.5": (resize("RESIZE_NEAREST_NEIGHBOR", 33, 513), "33×33 to 513×513"),
    "prelu, a slope a channel": (prelu(1, 1, CHANNELS), ""),
    "prelu, a slope an element": (prelu(8, 8, CHANNELS), "shared_axes"),
    "pad": (Op("PAD", [T(), numbers(0, 0, 1, 1, 1, 1, 0, 0)]), ""),
    "pad the batch": (Op("PAD", [T(), numbers(1, 0, 0, 0, 0, 0, 0, 0)]), "pads the batch"),
    "pack": (Op("PACK", [T((1, 4)), T((1, 4))], [T((1, 2, 4))], options("PackOptions", axis=1)), ""),
    "pack the batch": (Op("PACK", [T((4, 1)), T((4, 1))], [T((2, 4, 1))], options("PackOptions", axis=0)), "batch"),
    "split": (split(3), ""),
    "split the batch": (split(0), "splits the batch"),
    "tile": (Op("TILE", [T((1, 1, 1, 8)), numbers(1, 9, 9, 1)], [T((1, 9, 9, 8))]), ""),
    "tile the batch": (Op("TILE", [T((1, 1, 1, 8)), numbers(2, 1, 1, 1)], [T((2, 1, 1, 8))]), "repeats the batch"),
    "tile, computed": (Op("TILE", [T((1, 1, 1, 8)), T((4,), dtype="int32")], [T((1, 9, 9, 8))]), "at run time"),
    "slice with strides of 1": (strided((1, 1, 1, 1)), ""),
    "slice with strides of 2": (strided((1, 2, 1, 1)), "every n-th"),
    "slice with an ellipsis": (strided((1, 1, 1, 1), ellipsisMask=1), "ellipsis"),
    "slice with a new axis": (strided((1, 1, 1, 1), newAxisMask=2), "new axis"),
    "lstm": (lstm(), ""),
    "lstm with a float state": (lstm("float32", "float32"), "state is float32"),
    "transpose": (Op("TRANSPOSE", [T(), numbers(0, 2, 1, 3)]), ""),
    "transpose, computed": (Op("TRANSPOSE", [T(), T((4,), dtype="int32")]), "at run time"),
    "reshape": (Op("RESHAPE", [T(), numbers(1, 1024)], [T((1, 1024))]), ""),
    "reshape, computed": (Op("RESHAPE", [T(), T((2,), dtype="int32")], [T((1, 1024))]), "at run time"),
    "five dimensions": (Op("RESHAPE", [T(), numbers(1, 1)], [T((1, 2, 4, 8, 16))]), "three innermost"),
    "five dimensions, two of them 1": (Op("RESHAPE", [T(), numbers(1, 1)], [T((1, 1, 8, 8, 16))]), ""),
    "transposed conv": (Op("TRANSPOSE_CONV", [numbers(1, 16, 16, 8), weights(8, 2, 2, 16), T()]), ""),
    "requantize": (Op("QUANTIZE", [T(dtype="uint8")]), ""),
    "add": (Op("ADD", [T(), T()]), ""),
    "add in 16 bits": (Op("ADD", [T(dtype="int16"), T(dtype="int16")], [T(dtype="int16")]), "int16"),
    "leaky relu": (Op("LEAKY_RELU", [T()]), "shared_axes"),
    "hard swish": (Op("HARD_SWISH", [T()]), "ReLU6"),
    "division": (Op("DIV", [T(), T()]), "reciprocal"),
    "custom": (Op("MyOp", [T()]), "custom operators"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition(tmp_path: Path, name: str) -> None:
    op, words = CONDITIONS[name]
    quantized = Op("RELU", [T()])  # so that the model is 8-bit whatever the operator under test is
    node = checked(tmp_path, op, quantized).nodes[0]
    assert node.op == op.name
    assert (node.placement == ACCELERATOR) == (words == ""), node
    assert words in f"{node.reason} {node.fix}"
    assert bool(node.reason) == bool(node.fix) == bool(words)
