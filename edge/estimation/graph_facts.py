"""Count what decides a model's latency: multiply-adds by kind, elements written, parameters, layers.

    conv        convolutions with a kernel larger than one element, or with groups; also transposed and recurrent ones
    pointwise   1×1 convolutions, and matrix products with more than one row
    depthwise   convolutions with one input channel for each filter
    dense       layers with one output position: every weight is read for a single multiply-add

Activations are the outputs of these layers, parameters their weights. Other operators are not counted: in the published
models that `edge estimate` is fitted to, their cost is part of the layer before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from converters.onnx.graph import OnnxGraph, OnnxNode, read_onnx
from converters.onnx.shape_inference import RECURRENT, infer_sizes, macs_of_nodes
from converters.tflite.macs import macs
from converters.tflite.op import TfliteOp, elements, graph_ops, is_constant, sizes
from converters.tflite.reader import read_tflite
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.detect import FORMATS, format_of
from runtimes.shapes import free_axes, suggestion

CONV, POINTWISE, DEPTHWISE, DENSE = "conv", "pointwise", "depthwise", "dense"
_MATRIX = ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger")
_CONVOLUTION = ("Conv", "QLinearConv", "ConvInteger")


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """The counts of one graph; for other things than multiply-adds, elements.

    largest_step: The most elements that one operator reads and writes, without constants.
    """

    conv_macs: int
    pointwise_macs: int
    depthwise_macs: int
    dense_macs: int
    activations: int
    parameters: int
    layers: int
    largest_step: int

    @property
    def macs(self) -> int:
        """All multiply-adds of one inference."""
        return self.conv_macs + self.pointwise_macs + self.depthwise_macs + self.dense_macs


@dataclass(frozen=True, kw_only=True)
class _Layer:
    kind: str
    macs: int
    activations: int
    parameters: int


def count_graph(model: Path) -> GraphFacts:
    """Count an artifact's or a file's graph. Raises UsageError for a format whose graph edge does not read."""
    path = Artifact.open(model).model
    model_format = format_of(path)
    if model_format == "tflite":
        tflite = read_tflite(path).graphs[0]
        _require_sizes(tflite.specs(tflite.inputs), path)
        ops = graph_ops(tflite)
        return _facts(_tflite_layers(ops), max(map(_tflite_step, ops), default=0), path)
    if model_format == "onnx":
        graph = read_onnx(path)
        inputs = [TensorSpec(name, graph.dtypes.get(name, ""), graph.shapes.get(name, ())) for name in graph.inputs]
        _require_sizes(inputs, path)
        known = infer_sizes(graph)
        return _facts(_onnx_layers(graph, known, inputs, path), _onnx_step(graph, known), path)
    hint = f"convert it first: edge convert {path.name} --to onnx"
    if FORMATS[model_format].is_compiled:
        hint = f"give the {FORMATS[model_format].compiled_from}"
    raise UsageError(f"edge cannot read the graph of {path.name} in the format {model_format}", hint)


def _require_sizes(inputs: Sequence[TensorSpec], path: Path) -> None:
    """Raise InputError for a free dimension other than the batch, because the amount of work depends on it."""
    if any(free_axes(spec) for spec in inputs):
        raise _free(inputs, path)


def _free(inputs: Sequence[TensorSpec], path: Path) -> InputError:
    free = [spec for spec in inputs if any(isinstance(size, str) for size in spec.shape)]
    shapes = " ".join(suggestion(spec, {}) for spec in free)
    return InputError(
        f"the sizes inside {path.name} depend on its inputs",
        f"fix them: edge convert {path.name} --to onnx {shapes}" if free else "export it with fixed sizes",
    )


def _facts(layers: Iterable[_Layer], largest_step: int, path: Path) -> GraphFacts:
    found = list(layers)
    if not found:
        raise InputError(f"{path} has no convolution and no dense layer", "only neural networks can be estimated")
    by_kind = {kind: sum(one.macs for one in found if one.kind == kind) for kind in (CONV, POINTWISE, DEPTHWISE, DENSE)}
    return GraphFacts(
        conv_macs=by_kind[CONV],
        pointwise_macs=by_kind[POINTWISE],
        depthwise_macs=by_kind[DEPTHWISE],
        dense_macs=by_kind[DENSE],
        activations=sum(one.activations for one in found),
        parameters=sum(one.parameters for one in found),
        layers=len(found),
        largest_step=largest_step,
    )


def _tflite_layers(ops: Iterable[TfliteOp]) -> Iterator[_Layer]:
    for op in ops:
        count = macs(op)
        if not count:
            continue
        outputs, weights = elements(op.outputs[0]), op.input(1)
        # Weights in fp16 come from a DEQUANTIZE, so that they do not look like constants here.
        data = op.input(2 if op.type == "TRANSPOSE_CONV" else 0)
        parameters = 0 if op.type == "BATCH_MATMUL" else sum(map(elements, op.inputs)) - elements(data)
        yield _Layer(
            kind=_tflite_kind(op, sizes(op.outputs[0]), sizes(weights)),
            macs=count,
            activations=outputs,
            parameters=parameters,
        )


def _tflite_kind(op: TfliteOp, output: tuple[int, ...], weights: tuple[int, ...]) -> str:
    if op.type == "DEPTHWISE_CONV_2D":
        return DEPTHWISE
    if op.type in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        return DENSE if prod(output[:-1]) == 1 else POINTWISE
    if op.type == "CONV_2D" and prod(weights[1:3]) == 1 and sizes(op.input(0))[-1:] == weights[3:4]:
        return DENSE if prod(output[:-1]) == 1 else POINTWISE
    return DENSE if "LSTM" in op.type else CONV


def _tflite_step(op: TfliteOp) -> int:
    read = sum(elements(tensor) for tensor in op.inputs if not is_constant(tensor))
    return read + sum(elements(tensor) for tensor in op.outputs)


def _onnx_layers(
    graph: OnnxGraph, known: dict[str, tuple[int, ...]], inputs: Sequence[TensorSpec], path: Path
) -> Iterator[_Layer]:
    counts = macs_of_nodes(graph)
    if counts is None:
        raise _free(inputs, path)
    for node, count in zip(graph.nodes, counts, strict=True):
        if count:
            output = known.get(node.outputs[0], ())
            weights = known.get(graph.input(node, 3 if node.op.startswith("QLinear") else 1), ())
            again = known.get(graph.input(node, 2), ()) if node.op in RECURRENT else (0,)
            yield _Layer(
                kind=_onnx_kind(node, output, weights),
                macs=count,
                activations=prod(output),
                parameters=prod(weights) + prod(again),
            )


def _onnx_kind(node: OnnxNode, output: tuple[int, ...], weights: tuple[int, ...]) -> str:
    if node.op in _MATRIX:
        return DENSE if prod(output[:-1]) == 1 else POINTWISE
    if node.op not in _CONVOLUTION:
        return CONV
    groups = node.integer("group", 1)
    if groups > 1:
        return DEPTHWISE if weights[1] == 1 else CONV
    if prod(weights[2:]) > 1:
        return CONV
    return DENSE if prod(output[2:]) * prod(output[:1]) == 1 else POINTWISE


def _onnx_step(graph: OnnxGraph, known: dict[str, tuple[int, ...]]) -> int:
    def count(names: Iterable[str]) -> int:
        return sum(prod(known[name]) for name in names if name in known and not graph.is_constant(name))

    return max((count((*node.inputs, *node.outputs)) for node in graph.nodes), default=0)
