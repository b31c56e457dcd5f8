"""Turn what a TFLite file keeps in variables into inputs and outputs of the model.

ONNX has no variables, and OpenVINO reads none from TFLite. A variable becomes an input, and what the file assigns to it
an output: the value for the next inference. Sessions pass it on (`runtimes.stateful_session`).
"""

from __future__ import annotations

import tempfile
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from converters.base import NEXT_STATE
from converters.library_calls import loading
from converters.options import ConvertOptions
from converters.tflite.reader import DTYPES, read_tflite
from converters.tflite.signatures import keep_graph
from converters.tflite.writer import operator_code, operator_name, read_network, serialize, write_inline
from runtimes.errors import EngineError

_OPERATORS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")
_Tensor = Any  # a TensorT of the generated schema, which has no types
_INSTEAD = "what works: run the .tflite file itself, or convert the model that it was made from"


def with_explicit_states(model: Path, options: ConvertOptions) -> tuple[Path, dict[str, str]]:
    """Return a copy of the model without variables, and its states: input name → output name.

    A model without variables is returned as it is. Raises EngineError, naming the variable or the operator, for a state
    that cannot be an input: one that does not begin at zero, or that a loop uses.
    """
    if not any(operator.name in _OPERATORS for operator in read_tflite(model).graphs[0].operators):
        return model, {}
    folder = Path(options.scratch or tempfile.mkdtemp(prefix="edge-")) / "states"
    folder.mkdir(parents=True, exist_ok=True)
    with loading(model, "TFLite"):
        path = write_inline(model, folder / model.name)
        network = read_network(path)
        states = _Variables(network, model).replace()
        network.signatureDefs = None  # they do not list the states
        path.write_bytes(serialize(network))
    return path, states


class _Variables:
    """The variables of the main graph of a `ModelT`.

    _initial: The constant that each of them begins with.
    _handles: The variable of each tensor that is a handle.
    _states: The tensor of each variable that becomes an input.
    _values: The tensor that holds the value of each variable after the operators so far.
    _replaced: The tensors that are other ones now.
    """

    def __init__(self, network: Any, model: Path) -> None:
        self._network, self._graph, self._model = network, network.subgraphs[0], model
        self._initial = self._initial_values()
        self._handles: dict[int, str] = {}
        self._states: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._replaced: dict[int, int] = {}

    def replace(self) -> dict[str, str]:
        """Replace the variables; returns the states."""
        graph = self._graph
        graph.operators = [one for one in graph.operators if not self._takes(one)]
        graph.outputs = [self._replaced.get(int(place), int(place)) for place in graph.outputs]
        keep_graph(self._network, 0)
        self._check_others()
        read = {place for one in graph.operators for place in one.inputs} | set(graph.outputs)
        found = {}
        for name, place in self._states.items():
            if self._values[name] == place:  # never assigned: a constant
                graph.tensors[place].buffer = self._initial[name].buffer
            elif place in read or place in self._values.values():
                self._check_zero(name)
                graph.inputs = [*graph.inputs, place]
                found[graph.tensors[place].name.decode()] = self._add_output(place, self._values[name])
        return found

    def _takes(self, operator: Any) -> bool:
        """Return whether the operator is about variables; all others read their values from now on."""
        kind, inputs = self._kind(operator), _places(operator.inputs)
        handle = next((self._handles[place] for place in inputs if place in self._handles), "")
        operator.inputs = [self._replaced.get(place, place) for place in inputs]
        if kind == "VAR_HANDLE":
            self._declare(int(operator.outputs[0]), _shared_name(operator))
        elif kind == "READ_VARIABLE":
            self._replaced[int(operator.outputs[0])] = self._values[handle]
        elif kind == "ASSIGN_VARIABLE":
            self._values[handle] = operator.inputs[1]
        elif handle:
            raise self._refusal(f"{kind} uses the variable '{handle}'")
        return kind in _OPERATORS

    def _declare(self, place: int, name: str) -> None:
        """Let the tensor of the first handle of a variable hold its value at the beginning of an inference."""
        self._handles[place] = name
        if name in self._states:
            return
        if name not in self._initial:
            raise self._refusal(f"the file does not say what the variable '{name}' begins with")
        self._states[name] = self._values[name] = place
        state, initial = self._graph.tensors[place], self._initial[name]
        state.name = name.encode()
        state.type, state.shape, state.quantization = initial.type, initial.shape, initial.quantization

    def _add_output(self, state: int, value: int) -> str:
        """Add an output that copies the tensor `value`; returns its name.

        A copy, because the value may be an output already, or that of another state.
        """
        from ai_edge_litert import schema_py_generated as schema

        graph, given = self._graph, self._graph.tensors[state]
        output, shape = copy(given), schema.TensorT()
        output.name = given.name + NEXT_STATE.encode()
        shape.name, shape.type, shape.shape = output.name + b"/shape", schema.TensorType.INT32, [len(given.shape)]
        shape.buffer = self._add_buffer(np.asarray(given.shape, np.int32))
        graph.tensors += [output, shape]
        operator, place = schema.OperatorT(), len(graph.tensors) - 2
        operator.opcodeIndex = operator_code(self._network, schema.BuiltinOperator.RESHAPE)
        operator.inputs, operator.outputs = [value, place + 1], [place]
        operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        operator.builtinOptions = schema.ReshapeOptionsT()
        operator.builtinOptions.newShape = [int(size) for size in given.shape]
        graph.operators.append(operator)
        graph.outputs = [*graph.outputs, place]
        return str(output.name.decode())

    def _add_buffer(self, values: Any) -> int:
        from ai_edge_litert import schema_py_generated as schema

        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._network.buffers.append(buffer)
        return len(self._network.buffers) - 1

    def _initial_values(self) -> dict[str, _Tensor]:
        """Return the constant that each variable begins with, as a tensor."""
        found = {}
        for call in (one for one in self._graph.operators if self._kind(one) == "CALL_ONCE"):
            graph, handles = self._network.subgraphs[call.builtinOptions.initSubgraphIndex], {}
            for one in graph.operators:
                if self._kind(one) == "VAR_HANDLE":
                    handles[int(one.outputs[0])] = _shared_name(one)
                elif self._kind(one) == "ASSIGN_VARIABLE":
                    value = graph.tensors[one.inputs[1]]
                    if self._network.buffers[value.buffer].data is not None:
                        found[handles[int(one.inputs[0])]] = value
        return found

    def _check_zero(self, name: str) -> None:
        tensor = self._initial[name]
        data = bytes(bytearray(self._network.buffers[tensor.buffer].data))
        known = tensor.quantization
        has_scale = known is not None and known.scale is not None and len(known.scale)
        zero = known.zeroPoint[0] if has_scale and known.zeroPoint is not None else 0
        if (np.frombuffer(data, DTYPES[tensor.type]) != zero).any():
            raise self._refusal(f"the state '{name}' does not begin at zero")

    def _check_others(self) -> None:
        for graph in self._network.subgraphs[1:]:
            for kind in map(self._kind, graph.operators):
                if kind in _OPERATORS:
                    raise self._refusal(f"{kind} is in a loop or a branch")

    def _kind(self, operator: Any) -> str:
        return operator_name(self._network, operator)

    def _refusal(self, why: str) -> EngineError:
        what = f"{self._model} keeps a state in variables that cannot become inputs and outputs"
        return EngineError(f"{what}: {why}", _INSTEAD)


def _shared_name(operator: Any) -> str:
    return str(operator.builtinOptions.sharedName.decode())


def _places(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
