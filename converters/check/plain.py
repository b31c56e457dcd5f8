"""A model on a device that has no accelerator for it: everything runs on the processor."""

from __future__ import annotations

from pathlib import Path

from converters.check.onnx_graph import read_onnx
from converters.check.onnx_macs import macs_of_nodes
from converters.check.report import HOST, Node, Report
from converters.check.tflite_macs import macs
from converters.check.tflite_op import graph_ops
from converters.tflite_graph import read_tflite


def check_plain(path: Path, model_format: str) -> Report:
    """Every node on the host; formats other than tflite and onnx are listed without their nodes."""
    if model_format == "tflite":
        return _tflite(path)
    return _onnx(path) if model_format == "onnx" else Report("", ())


def _tflite(path: Path) -> Report:
    graph = read_tflite(path).graphs[0]
    ops = graph_ops(graph)
    nodes = tuple(Node(index, op.type, op.name, HOST, macs=macs(op)) for index, op in enumerate(ops))
    int8 = any(tensor.spec.dtype in ("int8", "uint8") for op in ops for tensor in op.outputs)
    return Report("", nodes, parameter_bytes=sum(one.constant_bytes for one in graph.tensors), extra={"int8": int8})


def _onnx(path: Path) -> Report:
    graph = read_onnx(path)
    counts = macs_of_nodes(graph) or [0] * len(graph.nodes)
    rows = enumerate(zip(graph.nodes, counts, strict=True))
    nodes = tuple(Node(index, node.op, node.name, HOST, macs=count) for index, (node, count) in rows)
    int8 = any(node.op.startswith(("QLinear", "QuantizeLinear")) or node.op.endswith("Integer") for node in graph.nodes)
    return Report("", nodes, parameter_bytes=graph.parameter_bytes, extra={"int8": int8})
