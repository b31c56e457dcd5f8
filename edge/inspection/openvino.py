"""Inspect OpenVINO models: the `.xml` file of the IR. The weights, in the `.bin` file next to it, are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edge.inspection.openvino_xml import Layer, Net, Port, read_net
from edge.inspection.report import Inspection, count_choices, precision_of, size_of
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.model_files.facts import Producer

# OpenVINO's element types (ov::element) in lower case, except those that `_dtype` derives, such as i8 → int8.
_DTYPES = {"f64": "float64", "f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16"}
_DTYPES |= {"bf16": "bfloat16", "boolean": "bool", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2"}
_COORDINATES = 4  # of a box
_NO_WORK = ("Parameter", "Const", "Result")
_PASSED_THROUGH = ("Reshape", "Squeeze", "Unsqueeze", "Convert", "FakeQuantize", "Result")


def read(path: Path) -> Inspection:
    """Read an `.xml` file of OpenVINO IR. Raises InputError if it is broken."""
    net = read_net(path)
    weights = path.with_suffix(".bin")
    parameter_bytes = _parameter_bytes(net)
    results = [layer for layer in net.layers.values() if layer.type == "Result"]
    return Inspection(
        format="openvino",
        inputs=tuple(_input(layer) for layer in net.layers.values() if layer.type == "Parameter"),
        outputs=tuple(_output(net, layer) for layer in results),
        ops={op: count for op, count in net.ops.items() if op not in _NO_WORK},
        precision=precision_of(parameter_bytes, quantized_activations=net.ops["FakeQuantize"] > 0),
        parameter_bytes=parameter_bytes,
        size_bytes=path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0),
        producers=tuple(_producer(net, result) for result in results),
        metadata=_facts(net),
        notes=() if weights.is_file() else (f"its weights file {weights.name} is missing",),
    )


def _facts(net: Net) -> JsonObject:
    facts: JsonObject = {"name": net.name, "ir_version": net.version, "made_by": net.runtime_version}
    facts["properties"] = dict(net.model_info)
    return {key: value for key, value in facts.items() if value}


def _input(layer: Layer) -> TensorSpec:
    return _spec(layer.name, next(iter(layer.outputs.values()), None))


def _output(net: Net, result: Layer) -> TensorSpec:
    port = next(iter(result.inputs.values()), None)
    producer = net.makers.get((result.id, port.id)) if port else None
    source = net.layers[producer[0]].outputs.get(producer[1]) if producer and producer[0] in net.layers else None
    name = result.attributes.get("output_names", "").split(",")[0]
    return _spec(name or (_first_name(source) if source else "") or result.name, port)


def _spec(fallback: str, port: Port | None) -> TensorSpec:
    if port is None:
        return TensorSpec(fallback, "unknown", ("any",))
    return TensorSpec(_first_name(port) or fallback, _dtype(port.precision), port.shape)


def _first_name(port: Port) -> str:
    return port.names.split(",")[0]


def _dtype(word: str) -> str:
    word = word.lower()
    if word in _DTYPES:
        return _DTYPES[word]
    kind = {"i": "int", "u": "uint"}.get(word[:1])
    return kind + word[1:] if kind and word[1:].isdigit() else word


def _parameter_bytes(net: Net) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for layer in net.constants:
        dtype = _dtype(layer.get("element_type", "unknown"))
        sizes[dtype] += _size(layer, dtype)
    return sizes


def _size(data: Mapping[str, str], dtype: str) -> int:
    if data.get("size", "").isdecimal() and len(data["size"]) < 20:
        return int(data["size"])
    shape = [part.strip() for part in data.get("shape", "").split(",")]
    return size_of(dtype, tuple(int(part) for part in shape if part.isdecimal() and len(part) < 20))


def _producer(net: Net, result: Layer) -> Producer | None:
    """Return the operator that computes an output, skipping operators that only reformat it."""
    layer, port = result, ""
    for _ in net.layers:
        if layer.type not in _PASSED_THROUGH or not layer.inputs:
            break
        producer = net.makers.get((layer.id, next(iter(layer.inputs))))
        if producer is None or producer[0] not in net.layers:
            return None
        layer, port = net.layers[producer[0]], producer[1]
    ports = list(layer.outputs)
    return Producer(layer.type, ports.index(port) if port in ports else 0, _classes(layer))


def _classes(layer: Layer) -> int | None:
    """Return of how many classes an operator chooses, if it is one that does."""
    inputs, outputs = ([port.shape for port in ports.values()] for ports in (layer.inputs, layer.outputs))
    if layer.type == "TopK" and inputs and outputs:  # ArgMax
        return count_choices(inputs[0], outputs[-1])
    if layer.type != "DetectionOutput" or len(inputs) < 2:
        return None
    scores = count_choices((_COORDINATES, *inputs[1]), inputs[0])  # of each box; the first is the background
    return scores - 1 if scores is not None and scores > 1 else None  # 1: every class has boxes of its own
