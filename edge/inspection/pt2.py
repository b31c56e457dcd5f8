"""Inspect PyTorch exported programs (`.pt2`): zip archives whose graph is JSON. Their pickles are never loaded."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TypedDict

from edge.inspection.archive import Archive, expecting
from edge.inspection.report import Inspection, precision_of, size_of
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import Producer

# torch._export.serde.schema.ScalarType (BSD-3-Clause)
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"}
_DTYPES |= {10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64"}
_DTYPES |= {29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0"}
# The file with the graph: the first since torch 2.8, the second before.
_GRAPHS = ("models/model.json", "serialized_exported_program.json")
_PASSED_THROUGH = ("aten.view", "aten.reshape", "aten.squeeze", "aten.flatten", "aten._to_copy", "aten.to")


# The parts of PyTorch's JSON that are read. They are not validated: `expecting` converts errors to InputError.
class _TensorName(TypedDict):
    name: str


class _Argument(TypedDict, total=False):
    as_tensor: _TensorName


class _Input(TypedDict):
    arg: _Argument


class _Expression(TypedDict):
    expr_str: str


class _Size(TypedDict, total=False):
    as_int: int
    as_expr: _Expression


class _Tensor(TypedDict):
    dtype: int
    sizes: list[_Size]


class _Node(TypedDict):
    target: str
    inputs: list[_Input]
    outputs: list[_Argument]


class _Graph(TypedDict):
    tensor_values: dict[str, _Tensor]
    nodes: list[_Node]


class _Constant(TypedDict):
    arg: _TensorName


class _UserArgument(TypedDict):
    arg: _Argument


class _InputSpec(TypedDict, total=False):
    user_input: _UserArgument
    parameter: _Constant
    buffer: _Constant
    tensor_constant: _Constant


class _OutputSpec(TypedDict, total=False):
    user_output: _UserArgument


class _Signature(TypedDict):
    input_specs: list[_InputSpec]
    output_specs: list[_OutputSpec]


class _GraphModule(TypedDict):
    graph: _Graph
    signature: _Signature


class _Program(TypedDict, total=False):
    graph_module: _GraphModule
    schema_version: dict[str, int]
    torch_version: str
    opset_version: dict[str, int]


def read(path: Path) -> Inspection:
    """Read a `.pt2` file. Raises InputError if it is broken or contains something else, such as a pickled model."""
    with Archive(path) as archive:
        names = archive.names()
        graph_file = next((name for name in names for known in _GRAPHS if _is_at(name, known)), None)
        if graph_file is None:
            raise InputError(f"{path} contains no exported program", "write it with torch.export.save")
        program = archive.json(graph_file)
    with expecting(path, graph_file):
        return _inspection(program)


def _is_at(name: str, known: str) -> bool:
    """Return whether the member is the known file, at the top level or in the folder named after the archive."""
    return name == known or (name.endswith(f"/{known}") and name.count("/") == known.count("/") + 1)


def _inspection(program: _Program) -> Inspection:
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
        precision=precision_of(sizes, quantized_activations=any("quantize_per" in _op(n) for n in graph["nodes"])),
        parameter_bytes=sizes,
        producers=_producers(graph["nodes"], outputs),
        metadata={key: value for key, value in _facts(program).items() if value},
    )


def _facts(program: _Program) -> JsonObject:
    schema = program.get("schema_version") or {}
    return {
        "torch": program.get("torch_version"),
        "opset": dict(program.get("opset_version") or {}),
        "schema": f"{schema['major']}.{schema['minor']}" if schema else None,
    }


def _constant(spec: _InputSpec) -> list[str]:
    found = [spec.get("parameter"), spec.get("buffer"), spec.get("tensor_constant")]
    return [str(one["arg"]["name"]) for one in found if one is not None]


def _specs(arguments: list[_Argument], tensors: dict[str, _Tensor]) -> tuple[TensorSpec, ...]:
    names = [argument["as_tensor"]["name"] for argument in arguments if "as_tensor" in argument]
    return tuple(TensorSpec(str(name), _dtype(tensors[name]), _shape(tensors[name])) for name in names)


def _dtype(tensor: _Tensor) -> str:
    return _DTYPES.get(tensor["dtype"], f"unknown_{tensor['dtype']}")


def _shape(tensor: _Tensor) -> tuple[int | str, ...]:
    return tuple(
        int(size["as_int"]) if "as_int" in size else _free(str(size["as_expr"]["expr_str"])) for size in tensor["sizes"]
    )


def _free(expression: str) -> str:
    """Simplify "Symbol('s36', positive=True, integer=True)" to "s36", also within a sum or product."""
    return re.sub(r"Symbol\('([^']*)'[^)]*\)", r"\1", expression)


def _parameter_bytes(tensors: dict[str, _Tensor], constants: set[str]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for name in constants:
        tensor = tensors[name]
        shape = tuple(size for size in _shape(tensor) if isinstance(size, int))
        sizes[_dtype(tensor)] += size_of(_dtype(tensor), shape)
    return sizes


def _op(node: _Node) -> str:
    """Shorten "torch.ops.aten.conv2d.default" to "aten.conv2d"."""
    parts = str(node["target"]).removeprefix("torch.ops.").split(".")
    return ".".join(parts[:2])


def _producers(nodes: list[_Node], outputs: list[_Argument]) -> tuple[Producer, ...]:
    operator = _output_op(nodes, outputs)
    return (Producer(operator),) if operator else ()


def _output_op(nodes: list[_Node], outputs: list[_Argument]) -> str | None:
    """Return the operator that computes the first output, skipping operators that only reformat it."""
    producers = {output["as_tensor"]["name"]: n for n in nodes for output in n["outputs"] if "as_tensor" in output}
    if not outputs or "as_tensor" not in outputs[0]:
        return None
    producer = producers.get(outputs[0]["as_tensor"]["name"])
    for _ in nodes:
        if producer is None or _op(producer) not in _PASSED_THROUGH:
            break
        source = producer["inputs"][0]["arg"]
        producer = producers.get(source["as_tensor"]["name"]) if "as_tensor" in source else None
    return _op(producer) if producer else None
