"""Inspect TFLite files, whether or not they are compiled for the Edge TPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from converters.edgetpu.compiled_model import read_compiled
from converters.tflite.reader import Graph, Operator, TfliteModel, read_tflite
from converters.wire.flatbuffer import flexbuffer_number
from edge.inspection.report import Inspection, count_choices, precision_of
from edge.inspection.tflite_metadata import read_labels, read_metadata, read_packed_properties
from runtimes.artifact.json_fields import JsonObject
from runtimes.model_files.facts import Producer

_QUANTIZED = ("int8", "uint8", "int16")
# These only change the representation of an output, not the meaning of its numbers.
_PASSED_THROUGH = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST")


def read(path: Path) -> Inspection:
    """Read a `.tflite` file. Raises InputError if it is broken."""
    model = read_tflite(path)
    graph = model.graphs[0]
    compiled = read_compiled(model)
    metadata = read_metadata(model)
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    properties = read_packed_properties(path)
    parameter_bytes = _parameter_bytes(model)
    return Inspection(
        format="tflite",
        inputs=graph.specs(graph.inputs),
        outputs=graph.specs(graph.outputs),
        ops=Counter(operator.name for one in model.graphs for operator in one.operators),
        # The compiler accepts only int8 models, and stores the weights in its own package.
        precision="int8" if compiled else precision_of(parameter_bytes, _has_quantized_activations(graph)),
        parameter_bytes=parameter_bytes,
        producers=tuple(_producer(graph, makers, index) for index in graph.outputs),
        metadata={
            **_model_facts(model),
            **(metadata.as_dict() if metadata else {}),
            **({"properties": properties} if properties else {}),
        },
        labels=read_labels(path, metadata) if metadata else None,
        edgetpu=compiled.as_dict() if compiled else None,
    )


def _model_facts(model: TfliteModel) -> JsonObject:
    facts: JsonObject = {"model_description": model.description} if model.description else {}
    version = model.metadata.get("min_runtime_version")
    if version is not None:
        # 16 bytes, padded with NUL: the first TensorFlow release whose runtime supports all of the model's operators.
        facts["min_runtime_version"] = version.text(0, min(16, len(version.view))).rstrip("\0")
    facts["subgraphs"] = len(model.graphs)
    if len(model.signatures) > 1:
        facts["signatures"] = sorted(model.signatures)
    return facts


def _parameter_bytes(model: TfliteModel) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for graph in model.graphs:
        for tensor in graph.tensors:
            if tensor.constant_bytes:
                sizes[tensor.spec.dtype] += tensor.constant_bytes
    return sizes


def _has_quantized_activations(graph: Graph) -> bool:
    return any(
        tensor.spec.quantization is not None and tensor.spec.dtype in _QUANTIZED
        for tensor in graph.tensors
        if not tensor.constant_bytes
    )


def _producer(graph: Graph, makers: Mapping[int, Operator], tensor: int) -> Producer | None:
    """Return the operator that computes a tensor, skipping operators that only reformat it."""
    for _ in graph.operators:
        maker = makers.get(tensor)
        if maker is None or maker.name not in _PASSED_THROUGH or not maker.inputs:
            break
        tensor = maker.inputs[0]
    maker = makers.get(tensor)
    return Producer(maker.name, maker.outputs.index(tensor), _classes(graph, maker)) if maker else None


def _classes(graph: Graph, operator: Operator) -> int | None:
    """Return of how many classes an operator chooses, if it is one that does."""
    if operator.name == "TFLite_Detection_PostProcess":
        return flexbuffer_number(operator.options, "num_classes")
    if operator.name == "ARG_MAX":
        scores, chosen = (graph.tensors[index].spec for index in (operator.inputs[0], operator.outputs[0]))
        return count_choices(scores.shape, chosen.shape)
    return None
