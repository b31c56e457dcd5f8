"""Read the tensors inside a model for one input: ONNX, TFLite and OpenVINO, in the order of computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.arrays import Array

READABLE = ("onnx", "tflite", "openvino")
MAX_ELEMENTS = 1 << 26  # of all tensors of a model together: 256 MB in float32
_ROUNDED = "_DequantizeLinear_Output"  # the tensor after the QDQ pair of ONNX Runtime's quantizer
_OPENVINO_ENDS = ("Parameter", "Result", "Constant")


@dataclass(frozen=True, kw_only=True)
class InnerTensor:
    """A computed tensor.

    names: Its names; an OpenVINO tensor also has those of the model that it was converted from.
    operator: The operator that computes it.
    inputs: The names of the tensors that the operator reads.
    values: float32; None if it was not read.
    is_output: Whether it is an output of the model.
    """

    names: tuple[str, ...]
    operator: str
    inputs: tuple[str, ...]
    values: Array | None
    is_output: bool = False


def inner_tensors(path: Path, model_format: str, feeds: Mapping[str, Array]) -> list[InnerTensor]:
    """Run the model on `feeds`, by input name or in order, and return its tensors."""
    readers = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}
    return readers[model_format](path, feeds)


def _onnx(path: Path, feeds: Mapping[str, Array]) -> list[InnerTensor]:
    import onnx

    from converters.onnx.cleanup import all_nodes_inside
    from converters.onnx.layer_errors import inner_session

    graph = onnx.load(path, load_external_data=False).graph
    outputs = {value.name for value in graph.output}
    written = [name for node in graph.node for name in node.output if name]
    session, names = inner_session(path, set(written))
    kinds = {value.name: value.type for value in session.get_outputs()}
    wanted = [name for name in names if kinds[name] in ("tensor(float)", "tensor(float16)", "tensor(double)")]
    given = _rename(feeds, [one.name for one in session.get_inputs()])
    values = dict(zip(wanted, _real(session.run(wanted, given)), strict=True))
    inputs = {name.removesuffix(_ROUNDED) for name in values} & set(values)
    found = []
    for node in graph.node:
        captured = {name for inner in all_nodes_inside(node) for name in inner.input}
        for name in node.output:
            plain = name.removesuffix(_ROUNDED)
            names_of = (name, plain) if plain in inputs and plain != name else (name,)
            found.append(
                InnerTensor(
                    names=names_of,
                    operator=node.op_type,
                    inputs=tuple(one for one in (*node.input, *captured) if one),
                    values=values.get(name),
                    is_output=name in outputs,
                )
            )
    return found


def _tflite(path: Path, feeds: Mapping[str, Array]) -> list[InnerTensor]:
    from converters.tflite.interpreter import inspection_interpreter
    from converters.tflite.reader import read_tflite
    from runtimes.tensors import dequantize

    graph = read_tflite(path).graphs[0]
    interpreter = inspection_interpreter(path)
    given = _rename(feeds, [spec.name for spec in graph.specs(graph.inputs)])
    places = dict(zip(graph.inputs, given.values(), strict=True))
    for place, values in places.items():
        interpreter.resize_tensor_input(place, values.shape)
    interpreter.allocate_tensors()
    for place, values in places.items():
        interpreter.set_tensor(place, values)
    interpreter.invoke()
    found = []
    left = MAX_ELEMENTS
    for operator in graph.operators:
        for index in operator.outputs:
            spec = graph.tensors[index].spec
            try:
                values = dequantize(interpreter.get_tensor(index), spec.quantization)
            except ValueError:  # an output that no operator reads has no data
                continue
            left -= values.size
            found.append(
                InnerTensor(
                    names=(f"#{index}", spec.name),
                    operator=operator.name,
                    inputs=tuple(f"#{place}" for place in operator.inputs if place >= 0),
                    values=values if left >= 0 else None,
                    is_output=index in graph.outputs,
                )
            )
    return found


def _openvino(path: Path, feeds: Mapping[str, Array]) -> list[InnerTensor]:
    import openvino

    network = openvino.Core().read_model(path)
    results = {_source(one) for one in network.get_results()}
    ports = [
        port
        for operation in network.get_ordered_ops()
        if operation.get_type_name() not in _OPENVINO_ENDS
        for port in operation.outputs()
        if port.element_type.is_real()
    ]
    network.add_outputs(ports)
    compiled = openvino.Core().compile_model(
        network, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    )
    given = _rename(feeds, [port.get_any_name() for port in network.inputs])
    answer = compiled.create_infer_request().infer(list(given.values()), share_outputs=False).to_tuple()
    values = {_source(one): value for one, value in zip(network.get_results(), answer, strict=True)}
    found = []
    for port, read in zip(ports, _real([values.get(_key(port)) for port in ports]), strict=True):
        operation = port.get_node()
        found.append(
            InnerTensor(
                names=(_key(port), operation.get_friendly_name(), *sorted(port.get_names())),
                operator=operation.get_type_name(),
                inputs=tuple(_key(one.get_source_output()) for one in operation.inputs()),
                values=read,
                is_output=_key(port) in results,
            )
        )
    return found


def _source(result: Any) -> str:
    return _key(result.input(0).get_source_output())


def _key(port: Any) -> str:
    return f"{port.get_node().get_friendly_name()}:{port.get_index()}"


def _rename(feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Return the feeds by the model's names, in its order."""
    if set(feeds) == set(names):
        return {name: feeds[name] for name in names}
    return dict(zip(names, feeds.values(), strict=True))


def _real(values: Sequence[Any]) -> Iterator[Array | None]:
    """Yield float arrays as float32, up to the largest number of elements together; None for anything else."""
    left = MAX_ELEMENTS
    for one in values:
        is_float = isinstance(one, np.ndarray) and one.dtype.kind == "f"
        left -= one.size if is_float else 0
        yield one.astype(np.float32) if is_float and left >= 0 else None
