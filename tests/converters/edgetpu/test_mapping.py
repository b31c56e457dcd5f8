"""Which operators map to the Edge TPU: compared with compiled models, and what a break does to the rest of a model."""

from __future__ import annotations

import random
import re
from collections import Counter
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
from tests.converters.edgetpu.graphs import (
    CHANNELS,
    Builder,
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
    placed,
    pool,
    weights,
)
from tests.real_data import real_data

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
