"""Unroll the recurrent layers of ONNX (LSTM, GRU, RNN) over the steps of a fixed length, for converters without them.

https://onnx.ai/onnx/operators/onnx__LSTM.html (and GRU, RNN) give the formulas and the order of the gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.onnx.op_rewrites import attribute_of
from runtimes.arrays import Array
from runtimes.errors import EngineError

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_WRITTEN = ("Relu", "Sigmoid", "Tanh")  # activations; the names of others differ from their operators
_UNUSUAL = ("activation_alpha", "activation_beta", "clip", "input_forget", "layout")  # attributes
_SEQUENCE_LENGTHS, _INITIAL_HIDDEN, _INITIAL_CELL, _PEEPHOLES = 4, 5, 6, 7  # places among the inputs
_MAX_STEPS = 256  # some 20 nodes each
_SLICE_WITH_INPUTS = 10  # the first opset in which Slice takes its bounds as inputs


def unroll_recurrent(proto: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Replace the recurrent nodes of the main graph, in place. `shapes` are the fixed sizes of the inputs.

    Nodes of unknown or large length and with weights that are computed are left as they are. Raises EngineError, naming
    the node, for one with a feature that is not written here, such as peepholes: no converter gets it right.
    """
    from converters.onnx.opset import opset_of

    graph = proto.graph
    if opset_of(proto) < _SLICE_WITH_INPUTS or not any(node.op_type in _GATES for node in graph.node):
        return
    known = _sizes(proto, shapes)
    constants = _constants(graph)
    nodes = list(graph.node)
    del graph.node[:]
    for place, node in enumerate(nodes):
        if node.op_type not in _GATES or node.domain:
            graph.node.append(node)
            continue
        if unusual := _unusual(node):
            what = f"node '{node.name or node.output[0]}' ({node.op_type}) is not converted: it has {unusual}"
            raise EngineError(what, "export the model without that, or choose another target")
        size = known.get(node.input[0])
        is_written = size is not None and all(name in constants for name in _given(node, 1, 2, 3))
        graph.node.extend(_Layer(graph, node, size, constants, place).nodes() if size and is_written else [node])


def _sizes(proto: Any, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are fixed if the inputs have these, by tensor."""
    import onnx

    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for value in copy.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    found = {}
    for value in (*graph.input, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return {name: size for name, size in found.items() if len(size) == 3 and size[0] <= _MAX_STEPS}


def _constants(graph: Any) -> dict[str, Array]:
    from onnx import numpy_helper

    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _unusual(node: Any) -> str:
    """Return what the node has that is not written here, in words; "" for nothing."""
    if _given(node, _SEQUENCE_LENGTHS):
        return "a length for each sequence (sequence_lens)"
    if _given(node, _PEEPHOLES):
        return "peepholes"
    attributes = [one for one in _UNUSUAL if attribute_of(node, one, None)]
    others = [name for name in _activations(node) if name not in _WRITTEN]
    return " and ".join([*(f"the attribute {one}" for one in attributes), *(f"the activation {one}" for one in others)])


def _activations(node: Any) -> list[str]:
    """Return the activations of all directions as names of operators."""
    directions = _DIRECTIONS[attribute_of(node, "direction", b"forward").decode()]
    given = [name.decode().capitalize() for name in attribute_of(node, "activations", ())]
    return given or _ACTIVATIONS[node.op_type] * len(directions)


def _given(node: Any, *places: int) -> list[str]:
    """Return the inputs in these places, without those that are left out."""
    return [node.input[place] for place in places if place < len(node.input) and node.input[place]]


class _Layer:
    """One recurrent node, and the nodes that compute the same step by step.

    They compute on rows [batch, size]: onnx2tf moves the axes of tensors with three or more, but not of two.
    """

    def __init__(
        self, graph: Any, node: Any, size: tuple[int, ...], constants: Mapping[str, Array], place: int
    ) -> None:
        self._graph, self._node, self._name = graph, node, f"{node.name or node.op_type}/{place}"
        self._steps, self._batch = size[:2]
        self._made: list[Any] = []
        self._functions: Sequence[str] = ()  # the activations of the direction that is being written
        self._directions = _DIRECTIONS[attribute_of(node, "direction", b"forward").decode()]
        self._activations = _activations(node)
        self._resets_after = bool(attribute_of(node, "linear_before_reset", 0))
        self._weights, self._recurrence = (constants[name] for name in node.input[1:3])
        self._hidden, self._dtype = self._recurrence.shape[2], self._recurrence.dtype
        biases = [constants[name] for name in _given(node, 3)]
        width = 2 * _GATES[node.op_type] * self._hidden
        self._biases = biases[0] if biases else np.zeros((len(self._directions), width), self._dtype)

    def nodes(self) -> list[Any]:
        """Return the nodes in the order of computation."""
        outputs = [list[str]() for _ in range(3)]
        for direction, is_reverse in enumerate(self._directions):
            for kept, name in zip(outputs, self._direction(direction, is_reverse), strict=True):
                kept.append(name)
        for name, parts, axis in zip(self._node.output, outputs, (1, 0, 0), strict=False):
            if name:
                self._add("Concat", parts, name, axis=axis)
        return self._made

    def _direction(self, direction: int, is_reverse: bool) -> tuple[str, str, str]:
        """Add one direction.

        Returns all hidden states [steps, 1, batch, hidden], and the last hidden state and cell [1, batch, hidden].
        """
        count = len(_ACTIVATIONS[self._node.op_type])
        self._functions = self._activations[direction * count : (direction + 1) * count]
        hidden = self._initial(_INITIAL_HIDDEN, direction)
        cell = self._initial(_INITIAL_CELL, direction) if self._node.op_type == "LSTM" else hidden
        gates = _GATES[self._node.op_type] * self._hidden
        input_bias, recurrent_bias = self._biases[direction, :gates], self._biases[direction, gates:]
        inputs = self._shaped(self._node.input[0], (-1, self._weights.shape[2]))
        mixed = self._add("MatMul", [inputs, self._constant(self._weights[direction].T)])
        mixed = self._add("Add", [mixed, self._constant(input_bias)])
        recurrence = (self._constant(self._recurrence[direction].T), self._constant(recurrent_bias))
        rows = [""] * self._steps
        for step in reversed(range(self._steps)) if is_reverse else range(self._steps):
            hidden, cell = self._step(self._rows(mixed, step), hidden, cell, direction, recurrence)
            rows[step] = hidden
        all_rows = self._shaped(self._add("Concat", rows, axis=0), (self._steps, 1, self._batch, self._hidden))
        last_hidden, last_cell = (self._shaped(one, (1, self._batch, self._hidden)) for one in (hidden, cell))
        return all_rows, last_hidden, last_cell

    def _step(self, now: str, hidden: str, cell: str, direction: int, recurrence: tuple[str, str]) -> tuple[str, str]:
        """Add one step; `now` is what the input contributes. Returns the new hidden state and cell."""
        if self._node.op_type == "GRU":
            hidden = self._gated(now, hidden, direction, recurrence)
            return hidden, hidden
        total = self._add("Add", [now, self._recurrent(hidden, recurrence)])
        if self._node.op_type == "RNN":
            hidden = self._add(self._functions[0], [total])
            return hidden, hidden
        opened, shown, kept = (self._add(self._functions[0], [self._gate(total, place)]) for place in range(3))
        new = self._add("Mul", [opened, self._add(self._functions[1], [self._gate(total, 3)])])
        cell = self._add("Add", [self._add("Mul", [kept, cell]), new])
        return self._add("Mul", [shown, self._add(self._functions[2], [cell])]), cell

    def _gated(self, now: str, hidden: str, direction: int, recurrence: tuple[str, str]) -> str:
        """Add one step of a GRU: update, reset, hidden gate."""
        inner = self._recurrent(hidden, recurrence)
        update, reset = (
            self._add(self._functions[0], [self._add("Add", [self._gate(now, place), self._gate(inner, place)])])
            for place in range(2)
        )
        if self._resets_after:
            past = self._add("Mul", [reset, self._gate(inner, 2)])
        else:
            rows = slice(2 * self._hidden, 3 * self._hidden)
            own = self._constant(self._recurrence[direction, rows].T)
            bias = self._constant(self._biases[direction, 3 * self._hidden :][rows])
            past = self._recurrent(self._add("Mul", [reset, hidden]), (own, bias))
        new = self._add(self._functions[1], [self._add("Add", [self._gate(now, 2), past])])
        change = self._add("Mul", [update, self._add("Sub", [hidden, new])])
        return self._add("Add", [new, change])

    def _recurrent(self, hidden: str, recurrence: tuple[str, str]) -> str:
        return self._add("Add", [self._add("MatMul", [hidden, recurrence[0]]), recurrence[1]])

    def _gate(self, total: str, place: int) -> str:
        return self._slice(total, place * self._hidden, self._hidden, axis=1)

    def _rows(self, tensor: str, place: int) -> str:
        return self._slice(tensor, place * self._batch, self._batch, axis=0)

    def _slice(self, tensor: str, start: int, size: int, axis: int) -> str:
        return self._add("Slice", [tensor, *(self._constant(np.array([one])) for one in (start, start + size, axis))])

    def _initial(self, place: int, direction: int) -> str:
        """Return the first state [batch, hidden] of a direction: an input, or zeros."""
        given = _given(self._node, place)
        if not given:
            return self._constant(np.zeros((self._batch, self._hidden), self._dtype))
        return self._rows(self._shaped(given[0], (-1, self._hidden)), direction)

    def _shaped(self, tensor: str, shape: Sequence[int]) -> str:
        return self._add("Reshape", [tensor, self._constant(np.array(shape))])

    def _add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: int) -> str:
        """Add a node. Returns its output."""
        from onnx import helper

        output = output or f"{self._name}/{len(self._made)}"
        self._made.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes))
        return output

    def _constant(self, values: Array) -> str:
        from onnx import numpy_helper

        name = f"{self._name}/constant/{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name
