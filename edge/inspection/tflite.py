"""What is in a TFLite file, compiled for the Edge TPU or not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from converters.edgetpu.compiled import read_compiled
from converters.tflite_graph import Graph, TfliteModel, read_tflite
from edge.inspection.report import Inspection, precision_of
from edge.inspection.tflite_metadata import read_labels, read_metadata

_QUANTISED = ("int8", "uint8", "int16")
# These only change how an output is written down, not what its numbers mean.
_PASSED_THROUGH = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST")


def read(path: Path) -> Inspection:
    """Read a `.tflite` file; InputError when it is broken."""
    model = read_tflite(path)
    graph = model.graphs[0]
    compiled = read_compiled(model)
    metadata = read_metadata(model)
    parameter_bytes = _parameter_bytes(model)
    return Inspection(
        format="tflite",
        inputs=graph.specs(graph.inputs),
        outputs=graph.specs(graph.outputs),
        ops=Counter(operator.name for one in model.graphs for operator in one.operators),
        # The compiler takes nothing but int8, and hides the weights in its package.
        precision="int8" if compiled else precision_of(parameter_bytes, _quantised_activations(graph)),
        parameter_bytes=parameter_bytes,
        output_op=_output_op(graph),
        metadata={**_model_facts(model), **(metadata.as_dict() if metadata else {})},
        labels=read_labels(path, metadata) if metadata else None,
        edgetpu=compiled.as_dict() if compiled else None,
    )


def _model_facts(model: TfliteModel) -> dict[str, Any]:
    facts: dict[str, Any] = {"model_description": model.description} if model.description else {}
    version = model.metadata.get("min_runtime_version")
    if version is not None:
        # 16 bytes, padded with NUL: the TensorFlow release whose runtime first knew all of the model's operators.
        facts["min_runtime_version"] = version.text(0, min(16, len(version.view))).rstrip("\0")
    facts["subgraphs"] = len(model.graphs)
    return facts


def _parameter_bytes(model: TfliteModel) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for graph in model.graphs:
        for tensor in graph.tensors:
            if tensor.constant_bytes:
                sizes[tensor.spec.dtype] += tensor.constant_bytes
    return sizes


def _quantised_activations(graph: Graph) -> bool:
    return any(
        tensor.spec.quantization is not None and tensor.spec.dtype in _QUANTISED
        for tensor in graph.tensors
        if not tensor.constant_bytes
    )


def _output_op(graph: Graph) -> str | None:
    """The operator that makes the first output, looked for behind those that only rewrite it."""
    if not graph.outputs:
        return None
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    maker = makers.get(graph.outputs[0])
    for _ in graph.operators:
        if maker is None or maker.name not in _PASSED_THROUGH or not maker.inputs:
            break
        maker = makers.get(maker.inputs[0])
    return maker.name if maker else None
