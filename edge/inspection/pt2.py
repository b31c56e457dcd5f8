"""What is in a PyTorch exported program (`.pt2`): a zip archive whose graph is JSON. Its pickles are never opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.inspection.archive import Archive, expecting
from edge.inspection.report import Inspection, precision_of, size_of
from runtimes.errors import InputError
from runtimes.manifest import TensorSpec

# torch._export.serde.schema.ScalarType (BSD-3-Clause)
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"}
_DTYPES |= {10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64"}
_DTYPES |= {29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0"}
# Archives of torch >= 2.8 keep the graph in the first, those before in the second.
_GRAPHS = ("models/model.json", "serialized_exported_program.json")
_PASSED_THROUGH = ("aten.view", "aten.reshape", "aten.squeeze", "aten.flatten", "aten._to_copy", "aten.to")
_CONSTANT_KINDS = ("parameter", "buffer", "tensor_constant")
_Json = Mapping[str, Any]


def read(path: Path) -> Inspection:
    """Read a `.pt2` file; InputError when it is broken or holds something else, such as a pickled model."""
    with Archive(path) as archive:
        names = archive.names()
        graph_file = next((name for name in names for known in _GRAPHS if _is_at(name, known)), None)
        if graph_file is None:
            raise InputError(f"{path} holds no exported program", "write it with torch.export.save")
        program = archive.json(graph_file)
    with expecting(path, graph_file):
        return _inspection(program)


def _is_at(name: str, known: str) -> bool:
    """Whether a member is the known one, at the top or in the folder that torch names after the file."""
    return name == known or (name.endswith(f"/{known}") and name.count("/") == known.count("/") + 1)


def _inspection(program: _Json) -> Inspection:
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    tensors = graph["tensor_values"]
    inputs = [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    constants = {name for spec in signature["input_specs"] for name in _constant(spec)}
    sizes = _parameter_bytes(tensors, constants)
    return Inspection(
        format="pt2",
        inputs=_specs(inputs, tensors),
        outputs=_specs(outputs, tensors),
        ops=Counter(_op(node) for node in graph["nodes"]),
        precision=precision_of(sizes, quantised_activations=any("quantize_per" in _op(n) for n in graph["nodes"])),
        parameter_bytes=sizes,
        output_op=_output_op(graph["nodes"], outputs),
        metadata={key: value for key, value in _facts(program).items() if value},
    )


def _facts(program: _Json) -> dict[str, Any]:
    schema = program.get("schema_version") or {}
    return {
        "torch": program.get("torch_version"),
        "opset": dict(program.get("opset_version") or {}),
        "schema": f"{schema['major']}.{schema['minor']}" if schema else None,
    }


def _constant(spec: _Json) -> list[str]:
    return [str(spec[kind]["arg"]["name"]) for kind in _CONSTANT_KINDS if kind in spec]


def _specs(arguments: list[_Json], tensors: _Json) -> tuple[TensorSpec, ...]:
    names = [argument["as_tensor"]["name"] for argument in arguments if "as_tensor" in argument]
    return tuple(TensorSpec(str(name), _dtype(tensors[name]), _shape(tensors[name])) for name in names)


def _dtype(tensor: _Json) -> str:
    return _DTYPES.get(tensor["dtype"], f"unknown_{tensor['dtype']}")


def _shape(tensor: _Json) -> tuple[int | str, ...]:
    return tuple(
        int(size["as_int"]) if "as_int" in size else _free(str(size["as_expr"]["expr_str"])) for size in tensor["sizes"]
    )


def _free(expression: str) -> str:
    """ "Symbol('s36', positive=True, integer=True)" → "s36", also within a sum or product."""
    return re.sub(r"Symbol\('([^']*)'[^)]*\)", r"\1", expression)


def _parameter_bytes(tensors: _Json, constants: set[str]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for name in constants:
        tensor = tensors[name]
        shape = tuple(size for size in _shape(tensor) if isinstance(size, int))
        sizes[_dtype(tensor)] += size_of(_dtype(tensor), shape)
    return sizes


def _op(node: _Json) -> str:
    """ "torch.ops.aten.conv2d.default" → "aten.conv2d"."""
    parts = str(node["target"]).removeprefix("torch.ops.").split(".")
    return ".".join(parts[:2])


def _output_op(nodes: list[_Json], outputs: list[_Json]) -> str | None:
    """The operator that makes the first output, looked for behind those that only rewrite it."""
    makers = {output["as_tensor"]["name"]: n for n in nodes for output in n["outputs"] if "as_tensor" in output}
    if not outputs or "as_tensor" not in outputs[0]:
        return None
    maker = makers.get(outputs[0]["as_tensor"]["name"])
    for _ in nodes:
        if maker is None or _op(maker) not in _PASSED_THROUGH:
            break
        source = maker["inputs"][0]["arg"]
        maker = makers.get(source["as_tensor"]["name"]) if "as_tensor" in source else None
    return _op(maker) if maker else None
