"""What is in an OpenVINO model: the `.xml` file of its IR. Weights lie beside it in `.bin` and are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.inspection.openvino_xml import Layer, Net, Port, read_net
from edge.inspection.report import Inspection, precision_of, size_of
from runtimes.manifest import TensorSpec

# OpenVINO's element types (ov::element), in lower case, where numpy's name differs by more than the full word.
_DTYPES = {"f64": "float64", "f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16"}
_DTYPES |= {"bf16": "bfloat16", "boolean": "bool", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2"}
_NO_WORK = ("Parameter", "Const", "Result")
_PASSED_THROUGH = ("Reshape", "Squeeze", "Unsqueeze", "Convert", "FakeQuantize", "Result")


def read(path: Path) -> Inspection:
    """Read an `.xml` file of OpenVINO's IR; InputError when it is broken."""
    net = read_net(path)
    weights = path.with_suffix(".bin")
    parameter_bytes = _parameter_bytes(net)
    results = [layer for layer in net.layers.values() if layer.type == "Result"]
    return Inspection(
        format="openvino",
        inputs=tuple(_input(layer) for layer in net.layers.values() if layer.type == "Parameter"),
        outputs=tuple(_output(net, layer) for layer in results),
        ops={op: count for op, count in net.ops.items() if op not in _NO_WORK},
        precision=precision_of(parameter_bytes, quantised_activations=net.ops["FakeQuantize"] > 0),
        parameter_bytes=parameter_bytes,
        size_bytes=path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0),
        output_op=_output_op(net, results[0]) if results else None,
        metadata=_facts(net),
        notes=() if weights.is_file() else (f"{weights.name} with its weights is missing",),
    )


def _facts(net: Net) -> dict[str, Any]:
    facts = {"name": net.name, "ir_version": net.version, "made_by": net.runtime_version}
    return {key: value for key, value in facts.items() if value}


def _input(layer: Layer) -> TensorSpec:
    return _spec(layer.name, next(iter(layer.outputs.values()), None))


def _output(net: Net, result: Layer) -> TensorSpec:
    port = next(iter(result.inputs.values()), None)
    maker = net.makers.get((result.id, port.id)) if port else None
    made = net.layers[maker[0]].outputs.get(maker[1]) if maker and maker[0] in net.layers else None
    name = result.attributes.get("output_names", "").split(",")[0]
    return _spec(name or (_first_name(made) if made else "") or result.name, port)


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


def _output_op(net: Net, result: Layer) -> str | None:
    """The operator that makes the first output, looked for behind those that only rewrite it."""
    layer = result
    for _ in net.layers:
        if layer.type not in _PASSED_THROUGH or not layer.inputs:
            break
        maker = net.makers.get((layer.id, next(iter(layer.inputs))))
        if maker is None or maker[0] not in net.layers:
            return None
        layer = net.layers[maker[0]]
    return layer.type
