"""Which operators map to the Edge TPU: compared with compiled models, and each condition on a model built here."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converters.check.report import ACCELERATOR, HOST, Node, Report
from converters.edgetpu.compiled_model import CUSTOM_OP, read_compiled
from converters.edgetpu.documented_rules import eight_bit
from converters.edgetpu.mapping import check_edgetpu
from converters.edgetpu.requirements import newest_known
from converters.tflite.op import TfliteOp
from converters.tflite.reader import Graph, Operator, read_tflite
from runtimes.errors import InputError
from tests.real_data import real_data

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")
_OUTSIDE = 4096  # where the data of buffers begin that do not stand inline

CHANNELS = 16


@dataclass
class T:
    """A tensor to build: computed where it has no values, a constant otherwise."""

    shape: tuple[int, ...] = (1, 8, 8, CHANNELS)
    values: Any = None
    dtype: str = "int8"
    scales: tuple[float, ...] = (0.1,)
    zero: int = 0
    variable: bool = False
    signature: tuple[int, ...] | None = None
    inline: bool = True


@dataclass
class Op:
    """An operator to build: inputs and outputs are tensors; the same object is the same tensor."""

    name: str
    inputs: list[T | None]
    outputs: list[T] = field(default_factory=lambda: [T()])
    options: Any = None
    version: int = 1


def numbers(*values: int, dtype: str = "int32") -> T:
    return T((len(values),), np.array(values, dtype), dtype, ())


def weights(*shape: int) -> T:
    return T(shape, np.ones(shape, np.int8))


def options(kind: str, **values: Any) -> Any:
    made = getattr(schema, f"{kind}T")()
    for name, value in values.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


class Builder:
    """Writes a TFLite file with LiteRT's own schema."""

    def __init__(self, ops: list[Op]) -> None:
        self.tensors: list[T] = []
        self.ops = ops
        self.outside = b""

    def index(self, tensor: T | None) -> int:
        if tensor is None:
            return -1
        for place, known in enumerate(self.tensors):
            if known is tensor:
                return place
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def write(self, path: Path) -> Path:
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
        graph.operators = [self.operator(model, op) for op in self.ops]
        made = {id(tensor) for op in self.ops for tensor in op.outputs}
        used = [tensor for op in self.ops for tensor in op.inputs if tensor]
        graph.inputs = [self.index(one) for one in used if one.values is None and id(one) not in made]
        graph.outputs = [self.index(one) for op in self.ops[-1:] for one in op.outputs]
        graph.tensors = [self.tensor(model, one, place) for place, one in enumerate(self.tensors)]
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        content = bytes(builder.Output())
        path.write_bytes(content.ljust(_OUTSIDE, b"\0") + self.outside if self.outside else content)
        return path

    def operator(self, model: Any, op: Op) -> Any:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        builtin = getattr(schema.BuiltinOperator, op.name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), op.version
        if builtin == schema.BuiltinOperator.CUSTOM:
            code.customCode = op.name
        model.operatorCodes.append(code)
        made.opcodeIndex = len(model.operatorCodes) - 1
        made.inputs, made.outputs = [self.index(one) for one in op.inputs], [self.index(one) for one in op.outputs]
        if op.options is not None:
            made.builtinOptions = op.options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(op.options).__name__[:-1])
        return made

    def tensor(self, model: Any, tensor: T, place: int) -> Any:
        made, scale = schema.TensorT(), schema.QuantizationParametersT()
        made.shape, made.type = list(tensor.shape), getattr(schema.TensorType, tensor.dtype.upper())
        made.name, made.isVariable, made.shapeSignature = f"t{place}", tensor.variable, tensor.signature
        if tensor.scales:
            scale.scale, scale.zeroPoint = list(tensor.scales), [tensor.zero] * len(tensor.scales)
            made.quantization = scale
        if tensor.values is not None:
            buffer = schema.BufferT()
            content = np.ascontiguousarray(tensor.values)
            if tensor.inline:
                buffer.data = np.frombuffer(content.tobytes(), np.uint8)  # a list is packed byte by byte
            else:
                buffer.offset, buffer.size = _OUTSIDE, content.nbytes
                self.outside = content.tobytes()
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        return made


def checked(tmp_path: Path, *ops: Op) -> Report:
    return check_edgetpu(Builder(list(ops)).write(tmp_path / "model.tflite"))


def placed(tmp_path: Path, *ops: Op) -> list[str]:
    return [node.placement for node in checked(tmp_path, *ops).nodes]


# --- Against the compiler itself -------------------------------------------------------------------------------------


def pairs() -> list[tuple[Path, Path]]:
    """Sources in the data folder that lie beside what the compiler made of them."""
    found = []
    for suffix in ("_edgetpu.tflite", ".compiled.tflite"):
        for compiled in sorted(real_data().rglob(f"*{suffix}")):
            source = compiled.with_name(compiled.name.replace(suffix, ".tflite"))
            if source.exists():
                found.append((source, compiled))
    return found


def key(graph: Graph, operator: Operator) -> tuple[Any, ...]:
    """What the compiler keeps of an operator that it leaves on the CPU: its type and the tensors that it makes."""
    outputs = [graph.tensors[index] for index in operator.outputs]
    return operator.name, tuple((re.sub(r":0$", "", one.spec.name), one.spec.shape, one.spec.dtype) for one in outputs)


@pytest.mark.data
def test_every_pair_splits_as_the_compiler_split_it() -> None:
    found = pairs()
    assert len(found) >= 9
    for source, compiled in found:
        assert_same_split(source, compiled)


def assert_same_split(path: Path, compiled_path: Path) -> None:
    source, compiled = read_tflite(path).graphs[0], read_tflite(compiled_path).graphs[0]
    report = check_edgetpu(path)
    on_host = Counter(key(source, source.operators[node.index]) for node in report.on_host)
    left = Counter(key(compiled, one) for one in compiled.operators if one.name != CUSTOM_OP)
    assert on_host == left, path.name
    assert len(report.nodes) == len(source.operators)
    # Nothing is lost: all that the compiled file no longer shows is inside its custom operator.
    assert len(report.accelerated) == len(source.operators) - sum(left.values()) > 0


@pytest.mark.data
def test_chip_bytes_are_estimated_within_a_few_percent() -> None:
    for path, compiled_path in pairs():
        compiled = read_compiled(read_tflite(compiled_path))
        assert compiled is not None
        # The small ones are instructions more than weights, and layers of one output are streamed though they fit.
        if compiled.cached_bytes > 50_000:
            found = check_edgetpu(path).extra["cache"]["cached_bytes"]
            assert found == pytest.approx(compiled.cached_bytes, rel=0.05), path.name


@pytest.mark.data
def test_per_channel_dense_weights_are_split_as_compiled_and_refused() -> None:
    path = real_data("real/edgetpu/dense_256.tflite")
    report = check_edgetpu(path)
    assert [node.placement for node in report.nodes] == [ACCELERATOR] * 3
    (refusal,) = report.refusals
    assert "quantized per channel, which the compiler maps" in refusal.reason
    assert not report.most_runs


# --- Conditions ------------------------------------------------------------------------------------------------------


def conv(dilation: tuple[int, int] = (1, 1), filters: T | None = None, bias: T | None = None, **more: Any) -> Op:
    made = options("Conv2DOptions", dilationWFactor=dilation[0], dilationHFactor=dilation[1], strideW=1, strideH=1)
    filters = filters or weights(CHANNELS, 3, 3, CHANNELS)
    return Op(
        "CONV_2D", [T(), filters, bias or T((CHANNELS,), np.zeros(CHANNELS, np.int32), "int32")], options=made, **more
    )


def depthwise(dilation: tuple[int, int], kernel: tuple[int, int] = (3, 3)) -> Op:
    made = options("DepthwiseConv2DOptions", dilationWFactor=dilation[0], dilationHFactor=dilation[1])
    return Op("DEPTHWISE_CONV_2D", [T(), weights(1, *kernel, CHANNELS)], options=made)


def pool(fused: int, name: str = "MAX_POOL_2D") -> Op:
    return Op(name, [T()], options=options("Pool2DOptions", fusedActivationFunction=fused))


def dense(out: tuple[int, ...] = (1, 10), filters: T | None = None, **more: Any) -> Op:
    made = options("FullyConnectedOptions", **{key: more.pop(key) for key in list(more) if key == "weightsFormat"})
    return Op("FULLY_CONNECTED", [T((out[0], CHANNELS)), filters or weights(10, CHANNELS)], [T(out)], made, **more)


def concat(inputs: list[T | None], fused: int = 0) -> Op:
    made = options("ConcatenationOptions", axis=3, fusedActivationFunction=fused)
    return Op("CONCATENATION", inputs, [T((1, 8, 8, 2 * CHANNELS))], made)


def constant(value: int, zero: int = 0) -> T:
    return T(values=np.full((1, 8, 8, CHANNELS), value, np.int8), zero=zero)


def reduction(name: str, *axes: int, channels: int = CHANNELS) -> Op:
    return Op(name, [T((1, 8, 8, channels)), numbers(*axes)], [T((1, channels))])


def resize(name: str, old: int, new: int) -> Op:
    return Op(name, [T((1, old, old, 8)), numbers(new, new)], [T((1, new, new, 8))])


def strided(strides: tuple[int, ...], **masks: int) -> Op:
    begin, end = numbers(0, 0, 0, 0), numbers(1, 8, 8, 8)
    made = options("StridedSliceOptions", **masks)
    return Op("STRIDED_SLICE", [T(), begin, end, numbers(*strides)], [T((1, 8, 8, 8))], made)


def split(axis: int) -> Op:
    return Op("SPLIT", [numbers(axis), T((1, 8, 8, 16))], [T((1, 8, 8, 8)), T((1, 8, 8, 8))])


def lstm(state: str = "int16", dtype: str = "int8") -> Op:
    inner: list[T | None] = [weights(4, 4) for _ in range(8)]
    bias: list[T | None] = [T((4,), np.zeros(4, np.int32), "int32") for _ in range(4)]
    states: list[T | None] = [T((1, 4), dtype=dtype, variable=True), T((1, 4), dtype=state, variable=True)]
    nothing: list[T | None] = [None]
    inputs: list[T | None] = [T((1, 6, 4)), *inner, *nothing * 3, *bias, *nothing * 2, *states]
    return Op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [T((1, 6, 4))])


def prelu(*shape: int) -> Op:
    return Op("PRELU", [T(), weights(*shape)])


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


# --- The rule of ancestors -------------------------------------------------------------------------------------------


def test_what_follows_a_break_stays_on_the_host_and_other_branches_do_not(tmp_path: Path) -> None:
    start, broken, after, beside, joined = T(), T(), T(), T(), T()
    report = checked(
        tmp_path,
        Op("RELU", [T()], [start]),
        Op("HARD_SWISH", [start], [broken]),
        Op("RELU6", [start], [beside]),
        Op("RELU", [broken], [after]),
        Op("ADD", [after, beside], [joined]),
    )
    assert [node.placement for node in report.nodes] == [ACCELERATOR, HOST, ACCELERATOR, HOST, HOST]
    assert [node.breaks for node in report.nodes] == [None, 1, None, 1, 1]
    assert report.first_break == report.nodes[1]
    assert "comes after node 1 HARD_SWISH" in report.nodes[4].reason


def test_conversions_of_the_inputs_stay_in_front_and_break_nothing(tmp_path: Path) -> None:
    pixels, floats, quantized = T(dtype="uint8"), T(dtype="float32", scales=()), T()
    ops = [Op("CAST", [pixels], [floats]), Op("QUANTIZE", [floats], [quantized]), Op("RELU", [quantized], [T()])]
    assert placed(tmp_path, *ops) == [HOST, HOST, ACCELERATOR]


def test_a_conversion_in_the_middle_breaks_the_chain(tmp_path: Path) -> None:
    first, floats, quantized = T(), T(dtype="float32", scales=()), T()
    ops = [
        Op("RELU", [T()], [first]),
        Op("DEQUANTIZE", [first], [floats]),
        Op("QUANTIZE", [floats], [quantized]),
        Op("RELU", [quantized], [T()]),
    ]
    assert placed(tmp_path, *ops) == [ACCELERATOR, HOST, HOST, HOST]


def test_float_outputs_cost_a_conversion_and_say_so(tmp_path: Path) -> None:
    first = T()
    report = checked(tmp_path, Op("RELU", [T()], [first]), Op("DEQUANTIZE", [first], [T(dtype="float32", scales=())]))
    assert [node.placement for node in report.nodes] == [ACCELERATOR, HOST]
    assert "8-bit outputs" in report.nodes[1].fix
    assert any("float: the CPU converts" in warning for warning in report.warnings)


def test_two_inputs_are_one_accelerated_part(tmp_path: Path) -> None:
    left, right = T(), T()
    ops = [Op("RELU", [T()], [left]), Op("RELU", [T()], [right]), Op("ADD", [left, right], [T()])]
    assert placed(tmp_path, *ops) == [ACCELERATOR] * 3


# --- The whole model -------------------------------------------------------------------------------------------------


def refusals(report: Report) -> str:
    assert [node.placement for node in report.nodes] == [HOST] * len(report.nodes)
    assert not report.most_runs
    return " ".join(f"{problem.reason} {problem.fix}" for problem in report.refusals)


def free(*shape: int) -> T:
    return T(shape, signature=(-1, *shape[1:]))


def test_a_free_batch_is_compiled_as_1(tmp_path: Path) -> None:
    assert placed(tmp_path, Op("RELU", [free(1, 4)], [free(1, 4)])) == [ACCELERATOR]


def test_a_free_batch_that_the_model_computes_with_is_refused(tmp_path: Path) -> None:
    start, shape = free(1, 4, 4), T((3,), dtype="int32", scales=())
    ops = [Op("SHAPE", [start], [shape]), Op("RESHAPE", [start, shape], [free(1, 16)])]
    report = checked(tmp_path, *ops)
    assert "?×4×4; node 0 SHAPE computes sizes from it" in refusals(report)
    assert "batch at 1" in refusals(report)
    assert report.quantized is None


def test_another_free_size_is_refused(tmp_path: Path) -> None:
    start, end = (T((1, 1, 4), signature=(-1, -1, 4)) for _ in range(2))
    assert "?×?×4; every size" in refusals(checked(tmp_path, Op("RELU", [start], [end])))


def test_a_free_size_within_the_model_is_one_nodes_fault(tmp_path: Path) -> None:
    free = T((1, 4), signature=(1, -1))
    ops = [Op("RELU", [T((1, 4))], [T((1, 4))]), Op("RELU", [T((1, 4))], [free]), Op("RELU", [free], [T((1, 4))])]
    report = checked(tmp_path, *ops)
    assert [node.placement for node in report.nodes] == [ACCELERATOR, HOST, HOST]
    assert "only at run time" in report.nodes[1].reason


def test_a_float_model_is_refused_and_checked_as_if_quantized(tmp_path: Path) -> None:
    start, middle = T(dtype="float32", scales=()), T(dtype="float32", scales=())
    report = checked(
        tmp_path,
        Op("CONV_2D", [start, T((16, 3, 3, 16), np.ones((16, 3, 3, 16), np.float32), "float32", ())], [middle]),
        Op("LEAKY_RELU", [middle], [T(dtype="float32", scales=())]),
    )
    assert "not quantized" in refusals(report)
    assert all("quantize" in node.fix or "PReLU" in node.fix for node in report.nodes)
    assert report.quantized is not None
    assert [node.placement for node in report.quantized.nodes] == [ACCELERATOR, HOST]
    assert report.quantized.parameter_bytes == 16 * 3 * 3 * 16  # a byte each, once quantized


def test_weights_stored_in_half_precision_are_constants_once_quantized(tmp_path: Path) -> None:
    packed = T((16, 1, 1, 16), np.ones((16, 1, 1, 16), np.float16), "float16", ())
    unpacked = T((16, 1, 1, 16), dtype="float32", scales=())
    report = checked(
        tmp_path,
        Op("DEQUANTIZE", [packed], [unpacked]),
        Op("CONV_2D", [T(dtype="float32", scales=()), unpacked], [T(dtype="float32", scales=())]),
    )
    assert report.quantized is not None
    assert [(node.op, node.placement) for node in report.quantized.nodes] == [("CONV_2D", ACCELERATOR)]


def test_a_version_that_the_compiler_does_not_know_refuses_the_whole_model(tmp_path: Path) -> None:
    first = T()
    report = checked(tmp_path, Op("RELU", [T()], [first]), Op("QUANTIZE", [first], [T()], version=3))
    assert "node 1 QUANTIZE" in refusals(report)
    assert "version 3" in report.nodes[1].reason
    assert checked(tmp_path, Op("QUANTIZE", [T()], version=2)).refusals == ()


def test_operators_younger_than_the_compiler_are_not_known_at_all(tmp_path: Path) -> None:
    report = checked(tmp_path, Op("RELU", [T()]), Op("GELU", [T()]))
    assert "node 1 GELU" in refusals(report)
    assert newest_known("GELU") == newest_known("STABLEHLO_ADD") == 0
    assert newest_known("PRELU") == 1
    assert newest_known("FULLY_CONNECTED") == 9


def test_dense_weights_with_a_scale_for_each_output_are_refused(tmp_path: Path) -> None:
    per_channel = T((10, CHANNELS), np.ones((10, CHANNELS), np.int8), scales=(0.1,) * 10)
    report = checked(tmp_path, dense(filters=per_channel))
    assert [node.placement for node in report.nodes] == [ACCELERATOR]
    assert "node 0 FULLY_CONNECTED" in report.refusals[0].reason
    convolution = T((CHANNELS, 3, 3, CHANNELS), np.ones((CHANNELS, 3, 3, CHANNELS), np.int8), scales=(0.1,) * CHANNELS)
    assert placed(tmp_path, conv(filters=convolution)) == [ACCELERATOR]


def test_weights_outside_the_flatbuffer_will_be_put_inside(tmp_path: Path) -> None:
    filters = weights(CHANNELS, 3, 3, CHANNELS)
    filters.inline = False
    report = checked(tmp_path, conv(filters=filters))
    assert [node.placement for node in report.nodes] == [ACCELERATOR]
    assert "edge convert moves them in" in report.warnings[0]
    assert report.parameter_bytes == CHANNELS * 9 * CHANNELS + 4 * CHANNELS


# --- What it costs ---------------------------------------------------------------------------------------------------


def test_multiply_adds_by_the_formulas(tmp_path: Path) -> None:
    made = checked(
        tmp_path,
        conv(),
        depthwise((1, 1)),
        dense(),
        Op("TRANSPOSE_CONV", [numbers(1, 16, 16, 8), weights(8, 2, 2, 16), T()], [T((1, 16, 16, 8))]),
        lstm(),
        Op("RELU", [T()]),
    )
    assert [node.macs for node in made.nodes] == [
        8 * 8 * 16 * (3 * 3 * 16),
        8 * 8 * 16 * (3 * 3),
        10 * 16,
        8 * 8 * 16 * (2 * 2 * 8),
        6 * 8 * 4 * 4,
        0,
    ]
    assert made.macs_share == 1.0


def test_the_share_counts_multiply_adds_and_not_nodes(tmp_path: Path) -> None:
    first, second = T(), T()
    big = conv()
    big.outputs = [first]
    ops = [big, Op("HARD_SWISH", [first], [second]), Op("DEPTHWISE_CONV_2D", [second, weights(1, 3, 3, 16)])]
    report = checked(tmp_path, *ops)
    assert report.macs_share == pytest.approx(16 / 17)
    assert report.most_runs


def test_parameters_beyond_the_chip_are_streamed(tmp_path: Path) -> None:
    shared = weights(3000, 3072)
    report = checked(tmp_path, Op("FULLY_CONNECTED", [T((1, 3072)), shared], [T((1, 3000))]))
    cache = report.extra["cache"]
    assert report.parameter_bytes == 3000 * 3072
    assert cache["streamed_bytes"] > 1_000_000
    assert cache["cached_bytes"] == cache["usable_bytes"]
    assert any("are sent to it at every inference" in warning for warning in report.warnings)


def test_constants_that_two_operators_share_count_once(tmp_path: Path) -> None:
    shared = weights(10, CHANNELS)
    two = [Op("FULLY_CONNECTED", [T((1, CHANNELS)), shared], [T((1, 10))]) for _ in range(2)]
    assert checked(tmp_path, *two).parameter_bytes == 10 * CHANNELS


def test_little_work_large_reshapes_and_large_activations_are_warned_of(tmp_path: Path) -> None:
    wide = T((1, 1024, 1024, 8))
    report = checked(
        tmp_path,
        Op("RELU", [T((1, 1024, 1024, 8))], [wide]),
        Op("RESHAPE", [wide, numbers(1, 2**23)], [T((1, 2**23))]),
    )
    text = "\n".join(report.warnings)
    assert "little work" in text
    assert "node 0 RELU reads and writes 16.0 MiB" in text
    assert "node 1: RESHAPE of 8,388,608 bytes" in text
    assert all(node.placement == ACCELERATOR for node in report.nodes)


def test_work_left_on_the_cpu_is_warned_of(tmp_path: Path) -> None:
    first, second = T(), T()
    heavy = conv()
    heavy.inputs[0] = second
    report = checked(tmp_path, Op("RELU", [T()], [first]), Op("HARD_SWISH", [first], [second]), heavy)
    assert not report.most_runs
    assert any("100% of the multiply-adds stay on the CPU" in warning for warning in report.warnings)


# --- Files that nobody vouches for -----------------------------------------------------------------------------------


def test_a_compiled_file_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already compiled") as caught:
        checked(tmp_path, Op(CUSTOM_OP, [T()]))
    assert "edge inspect" in caught.value.hint


def test_tensors_of_absurd_rank_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dimensions"):
        checked(tmp_path, Op("RELU", [T((1,) * 9)]))


def test_operators_without_tensors_are_no_crash(tmp_path: Path) -> None:
    nodes = checked(tmp_path, Op("CONV_2D", [], []), Op("SOFTMAX", [None], [T()]), Op("RELU", [T()])).nodes
    assert [node.placement for node in nodes] == [HOST, HOST, ACCELERATOR]
    assert nodes[0].name == ""


def test_mutated_files_end_in_one_line_or_an_answer(tmp_path: Path) -> None:
    path = Builder([conv(), pool(0), dense(), concat([T(), constant(0)]), lstm()]).write(tmp_path / "whole.tflite")
    whole, chance = path.read_bytes(), random.Random(7)
    outcomes: Counter[str] = Counter()
    for _ in range(400):
        broken = bytearray(whole[: chance.randrange(20, len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 9)):
            broken[chance.randrange(8, len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        outcomes[outcome(path)] += 1
    assert set(outcomes) == {"an answer", "one line"}


def outcome(path: Path) -> str:
    try:
        check_edgetpu(path)
    except InputError as error:
        return "one line" if "\n" not in error.message else error.message
    return "an answer"


def test_a_node_is_what_machines_are_promised() -> None:
    node = Node(index=3, op="CONV_2D", name="a", placement=HOST, reason="because", fix="do that", macs=5, breaks=3)
    assert list(node.to_json()) == ["index", "op", "name", "placement", "reason", "fix"]


@pytest.mark.parametrize(
    ("operator", "dtypes", "borders", "reason", "fix"),
    [
        ("QUANTIZE", ("float32", "int8"), {0}, "it converts from float32", "8-bit inputs"),
        ("QUANTIZE", ("float32", "int8"), set(), "it converts from float32 between two layers", "quantize the whole"),
        ("DEQUANTIZE", ("int8", "float32"), {1}, "it converts to float32", "8-bit outputs"),
        ("DEQUANTIZE", ("int8", "float32"), {7}, "it converts to float32 between two layers", "quantize the whole"),
    ],
)
def test_a_conversion_between_two_layers_is_not_called_the_models_input(operator, dtypes, borders, reason, fix):
    tensors = [
        SimpleNamespace(spec=SimpleNamespace(dtype=dtype, shape=(1, 4)), constant_bytes=0, is_variable=False)
        for dtype in dtypes
    ]
    op = TfliteOp(
        operator=SimpleNamespace(name=operator, inputs=(0,), outputs=(1,)),
        tensors=tuple(tensors),
        borders=frozenset(borders),
    )
    issue = eight_bit(op)
    assert issue is not None
    assert issue.reason == reason
    assert fix in issue.fix
