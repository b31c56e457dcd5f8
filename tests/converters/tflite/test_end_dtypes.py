"""Inputs and outputs of other dtypes: the network answers the same numbers as before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from converters.browser.engines import LITERT_JS
from converters.tflite.end_dtypes import with_end_dtypes
from converters.tflite.reader import DTYPES, read_tflite
from converters.tflite.writer import read_network, serialize

KINDS = schema.BuiltinOperator
SIZE = 4


def network(
    dtype: str,
    scale: float | None = None,
    zero_point: int = 0,
    *,
    operator: int = KINDS.RESHAPE,
    outputs: Sequence[int] = (1,),
) -> bytes:
    """Return a file with one operator, from the tensor "x" (0) to "y" (1)."""
    model, graph, step = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    model.version, model.buffers = 3, [schema.BufferT()]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    model.operatorCodes = [code]
    step.inputs, step.outputs = ([0, 0] if operator == KINDS.ADD else [0]), [1]
    if operator == KINDS.RESHAPE:
        step.builtinOptionsType, step.builtinOptions = schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT()
        step.builtinOptions.newShape = [1, SIZE]
    else:
        step.builtinOptionsType, step.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors = [_tensor(name, dtype, scale, zero_point) for name in ("x", "y")]
    graph.operators, graph.inputs, graph.outputs = [step], [0], list(outputs)
    model.subgraphs = [graph]
    return serialize(model)


def _tensor(name: str, dtype: str, scale: float | None, zero_point: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, SIZE], DTYPES.index(dtype), 0
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def changed(content: bytes, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the file with dtypes of LiteRT.js, and the notes."""
    source, result = folder / "source.tflite", folder / "result.tflite"
    source.write_bytes(content)
    model = read_network(source)
    notes = with_end_dtypes(model, LITERT_JS.dtypes)
    result.write_bytes(serialize(model))
    return result, notes


def answers(model: Path | bytes, values: np.ndarray) -> list[np.ndarray]:
    content = model if isinstance(model, bytes) else model.read_bytes()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]


@pytest.mark.parametrize(
    ("dtype", "zero_point", "wanted", "shift"), [("int8", -3, "uint8", 128), ("int16", 0, "int32", 0)]
)
def test_quantized_ends_keep_every_step(tmp_path, dtype, zero_point, wanted, shift) -> None:
    content = network(dtype, 0.05, zero_point, operator=KINDS.ADD)
    result, notes = changed(content, tmp_path)
    graph = read_tflite(result).graphs[0]
    (given,), (answer,) = graph.specs(graph.inputs), graph.specs(graph.outputs)
    assert [(spec.name, spec.dtype) for spec in (given, answer)] == [("x", wanted), ("y", wanted)]
    assert given.quantization is not None
    assert given.quantization.zero_points == (zero_point + shift,)
    assert notes == ()
    limits = np.iinfo(dtype)
    for low in np.linspace(limits.min, limits.max - SIZE, 64).astype(int):
        steps = (low + np.arange(SIZE)).reshape(1, SIZE)
        (expected,), (found,) = answers(content, steps.astype(dtype)), answers(result, (steps + shift).astype(wanted))
        assert np.array_equal(found.astype(int), expected.astype(int) + shift)


def test_a_number_outside_the_range_of_the_network_is_clipped(tmp_path) -> None:
    result, _ = changed(network("int16", 0.05), tmp_path)
    assert answers(result, np.int32([[40_000, -40_000, 7, 0]]))[0].tolist() == [[32767, -32768, 7, 0]]


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        *[(dtype, "int32") for dtype in ("int8", "int16", "uint16", "uint32", "int64")],
        ("bool", "uint8"),
        ("float16", "float32"),
        ("float64", "float32"),
    ],
)
def test_other_ends_keep_their_values(tmp_path, dtype, wanted) -> None:
    result, notes = changed(network(dtype), tmp_path)
    values = np.array([[0, 1, 100, 127]])
    (expected,) = answers(network(dtype), values.astype(dtype))
    (found,) = answers(result, values.astype(wanted))
    assert found.dtype == wanted
    assert np.array_equal(found, expected.astype(wanted))
    assert [("in place of " + dtype in note) for note in notes] == ([True] * 2 if dtype in ("int64", "uint32") else [])


def test_a_dtype_that_nothing_holds_stays_and_is_left_to_the_caller(tmp_path) -> None:
    result, _ = changed(network("uint64"), tmp_path)
    assert result.read_bytes() == serialize(read_network(tmp_path / "source.tflite"))


def test_an_input_that_is_an_output_too(tmp_path) -> None:
    result, _ = changed(network("int8", 0.1, outputs=(0, 1, 1)), tmp_path)
    values = np.uint8([[0, 1, 128, 255]])
    for answer in answers(result, values):
        assert np.array_equal(answer, values)


def test_an_output_that_holds_a_constant(tmp_path) -> None:
    (tmp_path / "constant.tflite").write_bytes(network("int64", outputs=(1, 2)))
    model = read_network(tmp_path / "constant.tflite")
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.int64([[5, 6, 7, 8]]).tobytes(), np.uint8)
    model.buffers.append(buffer)
    constant = _tensor("c", "int64", None, 0)
    constant.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(constant)
    result, _ = changed(serialize(model), tmp_path)
    assert answers(result, np.int32([[1, 2, 3, 4]]))[1].tolist() == [[5, 6, 7, 8]]
