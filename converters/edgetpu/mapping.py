"""Which operators of a TFLite model will the Edge TPU compiler map, and which stay on the CPU?

The rule: an operator is mapped if it is supported and nothing that it is computed from was left on the CPU, except
conversions right at the model's inputs. The compiler makes one accelerated part: everything behind the first break
stays on the CPU, other branches do not. `documented` and `empirical` say what is supported, `requirements` what the
whole model must be. (The rule is what remains on the CPU in the compiled models of google-coral/test_data; the
documentation says it more coarsely.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.check.report import ACCELERATOR, HOST, Node, Problem, Report
from converters.check.tflite_macs import macs
from converters.check.tflite_op import TfliteOp, elements, graph_ops, is_constant, sizes
from converters.edgetpu import documented, empirical
from converters.edgetpu.advice import advice
from converters.edgetpu.memory import estimate
from converters.edgetpu.requirements import has_outside, is_float, model_problems, problem_of_op, refuse_compiled
from converters.tflite_graph import Graph, Tensor, read_tflite
from runtimes.manifest import Quantization

EDGE_TPU = "the Edge TPU"
_OUTSIDE = "its weights stand outside the FlatBuffer, where the compiler does not look: edge convert puts them inside"
_UNKNOWN_SCALE = Quantization((1.0,), (0,), None)


def check_edgetpu(path: Path) -> Report:
    """Check a `.tflite` file; InputError when it is broken, or compiled already.

    For a model in floating point, every node is on the host, and `quantised` holds the answer for the same model
    quantised to int8 with batch 1.
    """
    model = read_tflite(path)
    refuse_compiled(model, path)
    ops = graph_ops(model.graphs[0])
    refusals = tuple(model_problems(model, ops))
    if not refusals:
        report = _report(ops, map_ops(ops), ())
        return replace(report, warnings=(_OUTSIDE, *report.warnings)) if has_outside(model) else report
    report = _report(ops, _all_on_host(ops, refusals), refusals)
    return replace(report, quantised=_after_quantisation(model.graphs[0])) if is_float(model.graphs[0]) else report


def map_ops(ops: list[TfliteOp]) -> tuple[Node, ...]:
    """Where each operator of a quantised model will run."""
    nodes = []
    left: dict[int, int] = {}  # tensor → the node that broke the chain on the way to it
    computed: set[int] = set()  # tensors made by anything but conversions of the inputs
    for index, op in enumerate(ops):
        problem = op_problem(op) or documented.fixed_sizes(op)
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


def op_problem(op: TfliteOp) -> Problem | None:
    """Why the Edge TPU cannot run this operator, looked at alone; None where it can."""
    known = documented.OPERATIONS.get(op.type), empirical.OPERATIONS.get(op.type)
    if op.operator.is_custom or known == (None, None):
        # An operator at the border to floating point is told so: that is what a user can change.
        return documented.unsupported(op) if op.type != "DEQUANTIZE" else documented.eight_bit(op)
    if not op.inputs or not op.outputs:
        return Problem("it has no input or no output", "convert the model again")
    always = (documented.eight_bit, documented.three_dimensions)
    conditions = (*(known[0] or ()), *(known[1] or ()), *always)
    return next((problem for condition in conditions if (problem := condition(op))), None)


def _converts_inputs(op: TfliteOp, computed: set[int]) -> bool:
    return op.type in empirical.LEADING_CONVERSIONS and computed.isdisjoint(op.operator.inputs)


def _after(ops: list[TfliteOp], cause: int) -> Problem:
    return Problem(f"it comes after node {cause} {ops[cause].type}, which stays on the host", f"mend node {cause}")


def _all_on_host(ops: list[TfliteOp], refusals: tuple[Problem, ...]) -> tuple[Node, ...]:
    """Where the compiler refuses the whole model: nodes that are at fault themselves say so."""
    nodes = []
    for index, op in enumerate(ops):
        own = problem_of_op(op) or op_problem(op)
        nodes.append(_node(index, op, HOST, own or refusals[0], breaks=index if own else None))
    return tuple(nodes)


def _node(index: int, op: TfliteOp, placement: str, problem: Problem | None = None, breaks: int | None = None) -> Node:
    reason, fix = (problem.reason, problem.fix) if problem else ("", "")
    return Node(index, op.type, op.name, placement, reason, fix, macs(op), breaks)


def _report(ops: list[TfliteOp], nodes: tuple[Node, ...], refusals: tuple[Problem, ...]) -> Report:
    mapped = [ops[node.index] for node in nodes if node.placement == ACCELERATOR]
    cache = estimate(mapped)
    report = Report(EDGE_TPU, nodes, refusals, (), _parameter_bytes(mapped), extra={"cache": cache.as_dict()})
    return report if refusals else replace(report, warnings=tuple(advice(ops, report, cache)))


def _parameter_bytes(ops: list[TfliteOp]) -> int:
    """The constants of these operators, each counted once."""
    constants = {index: op.tensors[index] for op in ops for index in op.operator.inputs if index >= 0}
    return sum(tensor.constant_bytes for tensor in constants.values())


def _after_quantisation(graph: Graph) -> Report:
    """The answer for the same graph with 8-bit integers in place of floats."""
    ops = graph_ops(_as_quantised(graph))
    return _report(ops, map_ops(ops), ())


def _as_quantised(graph: Graph) -> Graph:
    """Every float tensor as int8, and without the conversions that then have nothing to do."""
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
    """An int8 stand-in for a float tensor; constants shrink to a byte for each element."""
    if tensor.spec.dtype not in ("float32", "float16"):
        return tensor
    size = elements(tensor) if tensor.constant_bytes or unpacked else 0
    spec = replace(tensor.spec, dtype="int8", shape=sizes(tensor), quantization=_UNKNOWN_SCALE)
    return replace(tensor, spec=spec, constant_bytes=size)
