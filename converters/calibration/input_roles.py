"""Detect which inputs of a model index a table, and how many rows it has, by reading the model's file.

Made-up token ids must reach every row that a text could, and stay inside the table. Nothing is run: the graph is
followed from each input, through operators that keep its values, to the first lookup in a constant table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.input_range import keras_config
from converters.calibration.integer_inputs import calculate_bounds
from converters.library_calls import loading
from runtimes.artifact import TensorSpec

_MASK = "mask"

# Operators whose output holds values of their first input and no others.
_ONNX_PASSES = (
    *("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose"),
    *("Expand", "Slice", "Split", "Tile", "Dropout", "Clip", "Concat"),
)
_TFLITE_PASSES = (
    *("CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE"),
    *("SLICE", "STRIDED_SLICE", "TILE", "BROADCAST_TO"),
)
_TENSORFLOW_PASSES = (
    *("Cast", "Identity", "Reshape", "ExpandDims", "Squeeze"),
    *("Transpose", "StridedSlice", "Tile", "ConcatV2"),
)
_TORCH_PASSES = ("to", "_to_copy", "clone", "view", "reshape", "unsqueeze", "squeeze", "permute", "slice", "expand")
_KERAS_PASSES = ("Reshape", "Flatten", "Permute", "RepeatVector", "Dropout", "Identity", "Cropping1D")


@dataclass(frozen=True, kw_only=True)
class InputRole:
    """What an input means.

    rows: The number of rows of the table that it indexes; None if it indexes none.
    is_mask: Whether it says which positions count: a prefix of ones.
    is_segments: Whether it numbers the parts of a text: zeros, then ones.
    bounds: The least and the greatest of the whole numbers that it holds; None if they are unknown.
    """

    rows: int | None = None
    is_mask: bool = False
    is_segments: bool = False
    bounds: tuple[int, int] | None = None


def input_roles(model: Path, model_format: str, inputs: Sequence[TensorSpec]) -> dict[str, InputRole]:
    """Return the role of every input that has one. Raises InputError for a damaged file."""
    rows = _rows(model, model_format, inputs)
    texts = {_lengths(spec) for spec in inputs if spec.name in rows}
    roles = {}
    for spec in inputs:
        if spec.name in rows:
            roles[spec.name] = InputRole(rows=rows[spec.name], is_segments=rows[spec.name] == 2)
        elif spec.quantization is None and _is_mask(spec, _lengths(spec) in texts):
            roles[spec.name] = InputRole(is_mask=True)
    if model_format == "onnx":
        bounds = calculate_bounds(model, [spec for spec in inputs if spec.name not in roles])
        roles.update({name: InputRole(bounds=one) for name, one in bounds.items()})
    return roles


def _is_mask(spec: TensorSpec, is_beside_text: bool) -> bool:
    """Return whether an input without a table is a mask: by its name, or as the other integer input with token ids."""
    is_named, is_whole = _MASK in spec.name.lower(), np.dtype(spec.dtype).kind in "biu"
    if len(spec.shape) < 2:
        return False
    return (is_whole or is_named) if is_beside_text else is_named and (is_whole or len(spec.shape) == 2)


def _lengths(spec: TensorSpec) -> tuple[int | str, ...]:
    return spec.shape[1:]


def _rows(model: Path, model_format: str, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    if model_format == "keras":  # whose token ids may be floats
        return _keras(model)
    if model_format == "onnx":
        return _onnx(model).rows([spec.name for spec in inputs])
    if not any(np.dtype(spec.dtype).kind in "iu" and np.dtype(spec.dtype).itemsize > 1 for spec in inputs):
        return {}
    if model_format == "tflite":
        return _tflite(model)
    if model_format == "pt2":
        return _torch(model).rows([spec.name for spec in inputs])
    return _savedmodel(model) if model_format == "savedmodel" else {}


@dataclass
class _Lookups:
    """The tensors that index tables, with the number of rows, and which tensors hold the same values as another."""

    tables: dict[str, int] = field(default_factory=dict)
    passes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, index: str, rows: int) -> None:
        """Add a lookup; of several tables for one tensor, the smallest limits its values."""
        if rows > 0:
            self.tables[index] = min(rows, self.tables.get(index, rows))

    def rows(self, names: Iterable[str]) -> dict[str, int]:
        """Return the rows that each of the named tensors may index."""
        found = {name: self._reached(name) for name in names}
        return {name: min(rows) for name, rows in found.items() if rows}

    def _reached(self, name: str) -> list[int]:
        waiting, seen, found = [name], {name}, []
        while waiting:
            here = waiting.pop()
            if here in self.tables:
                found.append(self.tables[here])
            fresh = [other for other in self.passes.get(here, ()) if other not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        return found


def _onnx(model: Path) -> _Lookups:
    lookups = _Lookups()
    with loading(model, "ONNX"):
        import onnx

        graph = onnx.load(model, load_external_data=False).graph
        sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            attributes = {one.name: one for one in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                sizes[node.output[0]] = tuple(attributes["value"].t.dims)
            elif node.op_type in ("DequantizeLinear", "Cast", "Identity") and node.input[0] in sizes:
                sizes[node.output[0]] = sizes[node.input[0]]
            elif node.op_type == "Gather" and sizes.get(node.input[0]):
                axis = attributes["axis"].i if "axis" in attributes else 0
                lookups.add(node.input[1], sizes[node.input[0]][axis])
            elif node.op_type == "EmbedLayerNormalization":  # ONNX Runtime's fused one
                for index, table in ((0, 2), (1, 4)):
                    if len(node.input) > table and sizes.get(node.input[table]):
                        lookups.add(node.input[index], sizes[node.input[table]][0])
            elif node.op_type in _ONNX_PASSES:
                lookups.passes[node.input[0]].extend(node.output)
    return lookups


def _tflite(model: Path) -> dict[str, int]:
    from converters.tflite.op import graph_ops, is_constant
    from converters.tflite.reader import read_tflite

    graph = read_tflite(model).graphs[0]
    lookups, constants = _Lookups(), {str(i) for i, one in enumerate(graph.tensors) if is_constant(one)}
    for op in graph_ops(graph):
        ins, outs = [str(i) for i in op.operator.inputs], [str(i) for i in op.operator.outputs]
        if op.type == "DEQUANTIZE" and ins[0] in constants:
            constants.add(outs[0])
        elif op.type in ("GATHER", "EMBEDDING_LOOKUP"):
            table, index = (ins[0], ins[1]) if op.type == "GATHER" else (ins[1], ins[0])
            shape = graph.tensors[int(table)].spec.shape
            axis = op.option(0, "i") if op.type == "GATHER" else 0
            if table in constants and shape and isinstance(shape[axis], int):
                lookups.add(index, int(shape[axis]))
        elif op.type in _TFLITE_PASSES:
            lookups.passes[ins[0]].extend(outs)
    names = {str(i): graph.tensors[i].spec.name for i in graph.inputs}
    return {names[index]: rows for index, rows in lookups.rows(names).items()}


def _torch(model: Path) -> _Lookups:
    from torch.fx import Node

    from converters.pytorch.exported_program import read_program

    lookups = _Lookups()
    for node in read_program(model).graph.nodes:
        packet = str(node.target).removeprefix("aten.").split(".")[0]
        arguments = [one for one in node.args if isinstance(one, Node)]
        if node.op != "call_function" or not arguments:
            continue
        if packet == "embedding":
            lookups.add(str(arguments[1]), int(arguments[0].meta["val"].shape[0]))
        elif packet in _TORCH_PASSES:
            lookups.passes[str(arguments[0])].append(str(node))
    return lookups


def _savedmodel(model: Path) -> dict[str, int]:
    with loading(model, "a SavedModel"):
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        from runtimes.engines.tensorflow import load_signature

        _alive, signature = load_signature(model)
        frozen = convert_variables_to_constants_v2(signature)
        lookups, sizes = _Lookups(), dict[str, list[int]]()
        for node in frozen.graph.as_graph_def().node:
            ins = [name.split(":")[0].lstrip("^") for name in node.input]
            if node.op == "Const":
                sizes[node.name] = [one.size for one in node.attr["value"].tensor.tensor_shape.dim]
            elif node.op == "Identity" and ins[0] in sizes:
                sizes[node.name] = sizes[ins[0]]
            elif node.op in ("GatherV2", "ResourceGather") and sizes.get(ins[0]):
                lookups.add(ins[1], sizes[ins[0]][0])
            elif node.op in _TENSORFLOW_PASSES:
                lookups.passes[ins[0]].append(node.name)
        return lookups.rows(signature.structured_input_signature[1])


def _keras(model: Path) -> dict[str, int]:
    with loading(model, "a Keras model"):
        config = keras_config(model)
        lookups = _Lookups()
        _read_keras(config, "", lookups)
        names = [one["config"]["name"] for one in _keras_layers(config) if one.get("class_name") == "InputLayer"]
        return lookups.rows(names)


def _keras_layers(model: Any) -> list[Any]:
    known = model.get("config", {})
    layers: list[Any] = known if isinstance(known, list) else known.get("layers", [])
    return layers


def _read_keras(model: Any, prefix: str, lookups: _Lookups) -> None:
    """Add the lookups of a model, whose layers stand for their outputs; nested models get the prefix of their name."""
    before = ""
    for layer in _keras_layers(model):
        known = layer.get("config", {})
        nested = isinstance(known, list) or "layers" in known
        name = prefix + str(layer.get("name") or (known.get("name") if isinstance(known, dict) else ""))
        sources = [prefix + one for one in _history(layer.get("inbound_nodes", []))] or [before] * bool(before)
        if nested:
            _read_keras(layer, f"{name}/", lookups)
            inner = [one for one in _keras_layers(layer) if one.get("class_name") == "InputLayer"]
            for source, one in zip(sources, inner, strict=False):
                lookups.passes[source].append(f"{name}/{one['config']['name']}")
        for source in sources:
            if layer.get("class_name") == "Embedding":
                lookups.add(source, int(known["input_dim"]))
            elif str(layer.get("class_name")) in _KERAS_PASSES:
                lookups.passes[source].append(name)
        before = name


def _history(value: Any) -> Iterator[str]:
    """Yield the names of the layers that a layer is called on, in the notation of Keras 3 or 2."""
    if isinstance(value, Mapping):
        if "keras_history" in value:
            yield str(value["keras_history"][0])
        else:
            for one in value.values():
                yield from _history(one)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0]
        else:
            for one in value:
                yield from _history(one)
