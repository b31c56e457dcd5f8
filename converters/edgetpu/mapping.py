"""Predict which operators of a TFLite model the Edge TPU compiler will map, and which stay on the CPU.

The rule: an operator is mapped if it is supported and does not depend on an operator that was left on the CPU, except
for conversions directly at the model's inputs. The compiler creates one accelerated part: everything behind the first
unmapped operator stays on the CPU; other branches do not. `documented_rules` and `observed_rules` define which
operators are supported, `requirements` the conditions on the whole model. (The rule is derived from the operators that
remain on the CPU in the compiled models of google-coral/test_data; the documentation states it less precisely.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.check.report import ACCELERATOR, HOST, CompatibilityIssue, Node, Report
from converters.edgetpu import documented_rules, observed_rules
from converters.edgetpu.fixes import suggest_fixes
from converters.edgetpu.memory import estimate
from converters.edgetpu.requirements import (
    has_outside,
    is_float,
    misread,
    model_problems,
    refuse_compiled,
    version_problem,
    with_batch_1,
)
from converters.tflite.macs import macs
from converters.tflite.op import TfliteOp, elements, graph_ops, is_constant, sizes
from converters.tflite.reader import Graph, Tensor, read_tflite
from runtimes.artifact.manifest import Quantization

EDGE_TPU = "the Edge TPU"
_OUTSIDE = "its weights are outside the FlatBuffer, where the compiler does not find them: edge convert moves them in"
_UNKNOWN_SCALE = Quantization((1.0,), (0,), None)


def check_edgetpu(path: Path) -> Report:
    """Check a `.tflite` file. Raises InputError if it is broken or already compiled.

    For a float model, every node is on the host, and `quantized` contains the report for the same model quantized to
    int8 with batch 1. A model that the compiler maps but that would compute wrong values has both its split and a
    refusal.
    """
    model = read_tflite(path)
    refuse_compiled(model, path)
    graph = with_batch_1(model.graphs[0])
    ops = graph_ops(graph)
    refusals = tuple(model_problems(model, ops))
    if not refusals:
        report = _report(ops, map_ops(ops), tuple(misread(ops)))
        return replace(report, warnings=(_OUTSIDE, *report.warnings)) if has_outside(model) else report
    report = _report(ops, _all_on_host(ops, refusals), refusals)
    return replace(report, quantized=_after_quantization(graph)) if is_float(graph) else report


def ops_of_compiler(path: Path) -> list[TfliteOp]:
    """Return the operators of a `.tflite` file as the compiler would get them: with batch 1, and quantized."""
    graph = with_batch_1(read_tflite(path).graphs[0])
    return graph_ops(_as_quantized(graph) if is_float(graph) else graph)


def map_ops(ops: list[TfliteOp]) -> tuple[Node, ...]:
    """Return where each operator of a quantized model will run."""
    nodes = []
    left: dict[int, int] = {}  # tensor → the unsupported node that it depends on
    computed: set[int] = set()  # tensors written by anything but conversions of the inputs
    for index, op in enumerate(ops):
        problem = op_problem(op) or documented_rules.fixed_sizes(op)
        cause = next((left[place] for place in op.operator.inputs if place in left), None)
        if problem is None and cause is None:
            nodes.append(_node(index, op, ACCELERATOR))
        elif problem is not None:
            nodes.append(_node(index, op, HOST, problem, breaks=index))
        else:
            nodes.append(_node(index, op, HOST, _after(ops, cause or 0), breaks=cause))
        if problem is not None and _converts_inputs(op, computed):
            continue
        computed.update(op.operator.outputs)
        if nodes[-1].placement == HOST:
            left.update(dict.fromkeys(op.operator.outputs, index if cause is None else cause))
    return tuple(nodes)


def op_problem(op: TfliteOp) -> CompatibilityIssue | None:
    """Return why the Edge TPU cannot run this operator in isolation; None if it can."""
    known = documented_rules.OPERATIONS.get(op.type), observed_rules.OPERATIONS.get(op.type)
    if op.operator.is_custom or known == (None, None):
        # A DEQUANTIZE is reported as a float output, since that is what the user can change.
        return documented_rules.unsupported(op) if op.type != "DEQUANTIZE" else documented_rules.eight_bit(op)
    if not op.inputs or not op.outputs:
        return CompatibilityIssue("it has no input or no output", "export the model with both")
    always = (documented_rules.eight_bit, documented_rules.three_dimensions)
    conditions = (*(known[0] or ()), *(known[1] or ()), *always)
    return next((problem for condition in conditions if (problem := condition(op))), None)


def _converts_inputs(op: TfliteOp, computed: set[int]) -> bool:
    return op.type in observed_rules.LEADING_CONVERSIONS and computed.isdisjoint(op.operator.inputs)


def _after(ops: list[TfliteOp], cause: int) -> CompatibilityIssue:
    return CompatibilityIssue(
        f"it comes after node {cause} {ops[cause].type}, which stays on the host", f"fix node {cause}"
    )


def _all_on_host(ops: list[TfliteOp], refusals: tuple[CompatibilityIssue, ...]) -> tuple[Node, ...]:
    """Place every node on the host, for a model that the compiler refuses. Nodes with own problems report those."""
    nodes = []
    for index, op in enumerate(ops):
        own = version_problem(op) or op_problem(op)
        nodes.append(_node(index, op, HOST, own or refusals[0], breaks=index if own else None))
    return tuple(nodes)


def _node(
    index: int, op: TfliteOp, placement: str, problem: CompatibilityIssue | None = None, breaks: int | None = None
) -> Node:
    reason, fix = (problem.reason, problem.fix) if problem else ("", "")
    return Node(
        index=index, op=op.type, name=op.name, placement=placement, reason=reason, fix=fix, macs=macs(op), breaks=breaks
    )


def _report(ops: list[TfliteOp], nodes: tuple[Node, ...], refusals: tuple[CompatibilityIssue, ...]) -> Report:
    mapped = [ops[node.index] for node in nodes if node.placement == ACCELERATOR]
    cache = estimate(mapped)
    report = Report(
        accelerator=EDGE_TPU,
        nodes=nodes,
        refusals=refusals,
        warnings=(),
        parameter_bytes=_parameter_bytes(mapped),
        extra={"cache": cache.as_dict()},
    )
    return report if refusals else replace(report, warnings=tuple(suggest_fixes(ops, report, cache)))


def _parameter_bytes(ops: list[TfliteOp]) -> int:
    """Return the total size of the constants of these operators, each counted once."""
    constants = {index: op.tensors[index] for op in ops for index in op.operator.inputs if index >= 0}
    return sum(tensor.constant_bytes for tensor in constants.values())


def _after_quantization(graph: Graph) -> Report:
    """Return the report for the same graph with 8-bit integers instead of floats."""
    ops = graph_ops(_as_quantized(graph))
    return _report(ops, map_ops(ops), ())


def _as_quantized(graph: Graph) -> Graph:
    """Replace float tensors by int8 ones, and remove conversions that are then unnecessary."""
    unpacked = {
        place
        for operator in graph.operators
        if operator.name == "DEQUANTIZE" and all(is_constant(graph.tensors[i]) for i in operator.inputs if i >= 0)
        for place in operator.outputs
    }
    tensors = tuple(_as_int8(tensor, index in unpacked) for index, tensor in enumerate(graph.tensors))
    kept = tuple(one for one in graph.operators if one.name not in ("QUANTIZE", "DEQUANTIZE"))
    return replace(graph, tensors=tensors, operators=kept)


def _as_int8(tensor: Tensor, unpacked: bool) -> Tensor:
    """Return an int8 placeholder for a float tensor. Constants shrink to one byte per element."""
    if tensor.spec.dtype not in ("float32", "float16"):
        return tensor
    size = elements(tensor) if tensor.constant_bytes or unpacked else 0
    spec = replace(tensor.spec, dtype="int8", shape=sizes(tensor), quantization=_UNKNOWN_SCALE)
    return replace(tensor, spec=spec, constant_bytes=size)
