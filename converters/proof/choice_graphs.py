"""Write copies of a model that show what its ArgMax and TopK choose, or that take these choices as inputs.

An index jumps from one place to another where two values are nearly equal, and so does everything computed from it. A
model that takes another model's choices shows whether it computes the rest alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]

_ONNX = {"ArgMax": True, "ArgMin": False, "TopK": True}
_TFLITE = {"ARG_MAX": True, "ARG_MIN": False, "TOPK_V2": True}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An operator that chooses the indices of the largest or smallest values along an axis.

    operator, tensor: Its operator, and the tensor that it chooses from.
    scores: The output of the copy with the values of that tensor.
    picked: The output with the indices that it chooses, or the input that replaces them.
    """

    operator: str
    tensor: str
    scores: str
    picked: str
    axis: int
    largest: bool


def show_choices(path: Path, model_format: str, folder: Path) -> tuple[Path, list[Choice]]:
    """Write a copy of the model into `folder` with scores and indices as further outputs; [] if it chooses nothing.

    The choices are in the order of computation; those inside loops and branches are left out.
    """
    return _WRITERS[model_format](path, folder / path.name, None)


def take_choices(path: Path, model_format: str, folder: Path, shapes: Mapping[str, Shape]) -> Path:
    """Write a copy of the model into `folder` that takes its indices as inputs, and has the scores as outputs.

    shapes: The shape of each `Choice.picked`.
    """
    return _WRITERS[model_format](path, folder / path.name, shapes)[0]


def _names(place: int) -> tuple[str, str]:
    return f"edge/choice{place}/scores", f"edge/choice{place}/picked"


def _onnx(path: Path, out: Path, shapes: Mapping[str, Shape] | None) -> tuple[Path, list[Choice]]:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path)
    graph, found = model.graph, list[Choice]()
    for node in [one for one in graph.node if one.op_type in _ONNX]:
        known = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        (scores, picked), place = _names(len(found)), len(node.output) - 1
        axis = known.get("axis", -1 if node.op_type == "TopK" else 0)
        largest = _ONNX[node.op_type] and bool(known.get("largest", 1))
        found.append(
            Choice(
                operator=node.op_type, tensor=node.input[0], scores=scores, picked=picked, axis=axis, largest=largest
            )
        )
        graph.node.append(helper.make_node("Identity", [node.input[0]], [scores]))
        graph.output.append(onnx.ValueInfoProto(name=scores))
        if shapes is None:
            graph.node.append(helper.make_node("Identity", [node.output[place]], [picked]))
            graph.output.append(onnx.ValueInfoProto(name=picked))
            continue
        graph.input.append(helper.make_tensor_value_info(picked, TensorProto.INT64, shapes[picked]))
        graph.node.insert(0, helper.make_node("Identity", [picked], [node.output[place]]))
        node.output[place] += "/own"
    onnx.save(model, out)
    return out, found


def _tflite(path: Path, out: Path, shapes: Mapping[str, Shape] | None) -> tuple[Path, list[Choice]]:
    from converters.tflite.writer import operator_name, read_network, serialize, write_inline

    network = read_network(write_inline(path, out))
    graph, found = network.subgraphs[0], list[Choice]()
    ends = {int(place) for place in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        kind = operator_name(network, operator)
        if kind not in _TFLITE:
            continue
        places = int(operator.inputs[0]), int(operator.outputs[-1])
        tensor = graph.tensors[places[0]].name.decode()
        for place, name in zip(places, _names(len(found)), strict=True):
            if place not in ends:
                graph.tensors[place].name = name.encode()
        names = [graph.tensors[place].name.decode() for place in places]
        axis = -1 if kind == "TOPK_V2" else _first_number(network, graph.tensors[operator.inputs[1]])
        found.append(
            Choice(operator=kind, tensor=tensor, scores=names[0], picked=names[1], axis=axis, largest=_TFLITE[kind])
        )
        shown = places if shapes is None else places[:1]
        graph.outputs = [*graph.outputs, *(place for place in shown if place not in graph.outputs)]
        if shapes is not None:
            own = copy(graph.tensors[places[1]])
            own.name += b"/own"
            graph.tensors.append(own)
            operator.outputs = [*operator.outputs[:-1], len(graph.tensors) - 1]
            graph.inputs = [*graph.inputs, places[1]]
    network.signatureDefs = None  # they do not list the choices
    out.write_bytes(serialize(network))
    return out, found


def _first_number(network: Any, tensor: Any) -> int:
    """Return the first value of a constant of integers."""
    from converters.tflite.reader import DTYPES

    return int(np.frombuffer(bytes(bytearray(network.buffers[tensor.buffer].data)), DTYPES[tensor.type])[0])


def _openvino(path: Path, out: Path, shapes: Mapping[str, Shape] | None) -> tuple[Path, list[Choice]]:
    import openvino
    from openvino import opset13 as opset

    network = openvino.Core().read_model(path)
    found, ports, parameters = list[Choice](), [], []
    for operation in [one for one in network.get_ordered_ops() if one.get_type_name() == "TopK"]:
        (scores, picked), known = _names(len(found)), operation.get_attributes()
        found.append(
            Choice(
                operator="TopK",
                tensor=operation.input_value(0).get_node().get_friendly_name(),
                scores=scores,
                picked=picked,
                axis=known["axis"],
                largest=known["mode"] == "max",
            )
        )
        indices = operation.output(1)
        ports.append((operation.input_value(0), scores))
        if shapes is None:
            ports.append((indices, picked))
            continue
        parameter = openvino.op.Parameter(indices.element_type, openvino.PartialShape(list(shapes[picked])))
        parameter.set_friendly_name(picked)
        parameter.output(0).set_names({picked})
        for reader in indices.get_target_inputs():
            reader.replace_source_output(parameter.output(0))
        parameters.append(parameter)
    network.add_parameters(parameters)
    for port, name in ports:
        copied = opset.reshape(port, opset.shape_of(port), special_zero=False).output(0)
        copied.set_names({name})
        network.add_results([openvino.op.Result(copied)])
    openvino.save_model(network, out, compress_to_fp16=False)
    return out, found


_WRITERS = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}
