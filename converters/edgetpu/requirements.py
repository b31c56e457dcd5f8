"""What a whole model must be for the Edge TPU compiler to take it. Where one of these fails, nothing is compiled.

Sources: https://coral.ai/docs/edgetpu/models-intro (8 bits, constant sizes, constant parameters); the others by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converters.check.report import Problem
from converters.check.tflite_op import TfliteOp, is_constant
from converters.edgetpu.compiled import CUSTOM_OP
from converters.edgetpu.versions import FROZEN_AT, newest_known
from converters.tflite_graph import Graph, TfliteModel
from runtimes.errors import InputError

_FLOATS = ("float32", "float16", "bfloat16")


def refuse_compiled(model: TfliteModel, path: Path) -> None:
    """InputError for a file that the compiler has made already."""
    if any(operator.is_custom and operator.name == CUSTOM_OP for operator in model.graphs[0].operators):
        what = f"{path} is already compiled for the Edge TPU"
        raise InputError(what, "see what it holds with `edge inspect`, or check the .tflite that it was made from")


def has_outside(model: TfliteModel) -> bool:
    """Whether weights or options stand outside the FlatBuffer, where runtimes of the compiler's age do not look."""
    operators = (operator for graph in model.graphs for operator in graph.operators)
    return any(tensor.is_outside for graph in model.graphs for tensor in graph.tensors) or any(
        operator.has_outside_options for operator in operators
    )


def model_problems(model: TfliteModel, ops: list[TfliteOp]) -> Iterator[Problem]:
    """What keeps the compiler from taking the model at all."""
    graph = model.graphs[0]
    yield from _dynamic(graph)
    if not _quantised(graph):
        yield Problem("the model is not quantised, and the Edge TPU computes in 8-bit integers only", _QUANTISE)
    for index, op in enumerate(ops):
        problem = problem_of_op(op)
        if problem is not None:
            yield Problem(f"node {index} {op.type}: {problem.reason}", problem.fix)
            return


_QUANTISE = "convert to full-integer int8 with calibration data: edge convert MODEL --for DEVICE --calibration PICTURES"


def is_float(graph: Graph) -> bool:
    """Whether the graph computes in floating point only: it was not quantised, or its weights alone were."""
    return not _quantised(graph) and any(tensor.spec.dtype in _FLOATS for tensor in graph.tensors)


def problem_of_op(op: TfliteOp) -> Problem | None:
    """What makes the compiler refuse the whole model because of this one operator."""
    return _version(op) or _channels(op)


def _dynamic(graph: Graph) -> Iterator[Problem]:
    for spec in graph.specs(graph.inputs):
        if any(isinstance(size, str) for size in spec.shape):
            shape = "×".join("?" if isinstance(size, str) else str(size) for size in spec.shape)
            what = f"input {spec.name} has the free shape {shape}, and every size must be known beforehand"
            yield Problem(what, "convert it again: edge fixes the batch at 1")
            return


def _quantised(graph: Graph) -> bool:
    """Whether any computed tensor is quantised to 8 bits."""
    return any(
        tensor.spec.dtype in ("int8", "uint8") and tensor.spec.quantization is not None and not is_constant(tensor)
        for tensor in graph.tensors
    )


def _version(op: TfliteOp) -> Problem | None:
    known = newest_known(op.type)
    if op.operator.is_custom or op.operator.version <= known:
        return None
    upto = f"up to {known}" if known else "not at all"
    return Problem(
        f"version {op.operator.version}: the compiler stands at {FROZEN_AT} and knows this operator {upto}",
        "convert with an older converter, or with `edge convert --for coral-usb`, which writes what the compiler reads",
    )


def _channels(op: TfliteOp) -> Problem | None:
    """Dense weights with a scale for each output: runtimes of the compiler's age read only the first, in silence."""
    weights = op.input(1) if op.type == "FULLY_CONNECTED" else None
    if weights is None or weights.spec.quantization is None or len(weights.spec.quantization.scales) <= 1:
        return None
    return Problem(
        "its weights are quantised per channel, which runtimes of the compiler's age read wrongly, in silence",
        "convert with one scale for each dense layer, as `edge convert --for coral-usb` does",
    )
