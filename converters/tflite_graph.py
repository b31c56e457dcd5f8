"""A TFLite file as plain values: tensors, operators, buffers. No library is needed, and the file is not trusted.

Field numbers are places in the tables of tflite/converter/schema/schema.fbs (LiteRT, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.bounded import Source
from converters.flatbuffer import Table
from converters.tflite_names import DTYPES, OPERATORS
from runtimes.errors import InputError
from runtimes.manifest import Quantization, TensorSpec

_CUSTOM = OPERATORS.index("CUSTOM")
# Up to operator 127 the number stands in the old one-byte field, whatever the new field says (schema v3a).
_OLD_FIELD_LIMIT = 127
OUTSIDE_FROM = 1  # a buffer's data stand behind the FlatBuffer where its offset is larger than this


@dataclass(frozen=True)
class Tensor:
    """One tensor; `constant_bytes` is the size of its data, 0 for one that is computed.

    `data` are those bytes, `is_outside` tells whether they stand behind the FlatBuffer, where large files and some
    quantisers keep them. A variable keeps its value from one inference to the next.
    """

    spec: TensorSpec
    constant_bytes: int
    data: Source
    is_variable: bool
    is_outside: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator: `name` as in the schema ("CONV_2D"), or the custom code; inputs and outputs index the tensors.

    An optional input that is left out is −1. `options` are the bytes of a custom operator, `builtin_options` the
    table of a built-in one (Conv2DOptions, ...).
    """

    name: str
    version: int
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Source
    builtin_options: Table | None
    has_outside_options: bool = False


@dataclass(frozen=True)
class Graph:
    """One subgraph of a model; inputs and outputs index its tensors."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def specs(self, indices: tuple[int, ...]) -> tuple[TensorSpec, ...]:
        """The specs of the tensors with these indices."""
        return tuple(self.tensors[index].spec for index in indices)


@dataclass(frozen=True)
class TfliteModel:
    """A model: `graphs[0]` is the one that runs; `metadata` maps a name to the bytes kept under it."""

    description: str
    graphs: tuple[Graph, ...]
    metadata: Mapping[str, Source]


def read_tflite(path: Path) -> TfliteModel:
    """Read a `.tflite` file; InputError when it is broken. Weights are not loaded."""
    source = Source.open(path)
    if bytes(source.view[4:8]) != b"TFL3":
        raise InputError(f"{path} is not a TFLite model", "check how the file was made or copied")
    return _Reader(source).model()


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._root = Table.root(source)
        self._codes = [_operator_code(code) for code in self._root.tables(1)]
        self._buffers = self._root.tables(4)

    def model(self) -> TfliteModel:
        graphs = tuple(self._graph(table) for table in self._root.tables(2))
        if not graphs:
            raise self._source.broken("it holds no graph")
        return TfliteModel(self._root.text(3), graphs, self._metadata())

    def _metadata(self) -> dict[str, Source]:
        return {entry.text(0): self._buffer(entry.number(1, "I")).raw(0) for entry in self._root.tables(6)}

    def _graph(self, table: Table) -> Graph:
        tensors = tuple(self._tensor(one) for one in table.tables(0))
        inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
        if not all(0 <= index < len(tensors) for index in (*inputs, *outputs)):
            raise self._source.broken("an input or output of the graph is no tensor of it")
        return Graph(tensors, tuple(self._operator(one, len(tensors)) for one in table.tables(3)), inputs, outputs)

    def _tensor(self, table: Table) -> Tensor:
        kind = table.number(1, "b")
        if not 0 <= kind < len(DTYPES):
            raise self._source.broken(f"a tensor has the unknown type {kind}")
        spec = TensorSpec(table.text(3), DTYPES[kind], _shape(table), _quantization(table.table(4), self._source))
        data, is_outside = self._constant(table.number(2, "I"))
        return Tensor(spec, len(data.view), data, bool(table.number(5, "b")), is_outside)

    def _constant(self, index: int) -> tuple[Source, bool]:
        """The bytes of a tensor's data, and whether they stand behind the FlatBuffer."""
        if index == 0:  # by convention the empty buffer of tensors that are computed; some files leave it out
            return self._source.part(0, 0), False
        buffer = self._buffer(index)
        start, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if start > OUTSIDE_FROM and size:
            return self._source.part(start, size), True
        return buffer.raw(0), False

    def _buffer(self, index: int) -> Table:
        if index >= len(self._buffers):
            raise self._source.broken(f"it has no buffer {index}")
        return self._buffers[index]

    def _operator(self, table: Table, tensors: int) -> Operator:
        code = table.number(0, "I")
        if code >= len(self._codes):
            raise self._source.broken(f"it has no operator code {code}")
        name, version, is_custom = self._codes[code]
        inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
        if not all(-1 <= index < tensors for index in (*inputs, *outputs)):
            raise self._source.broken("an operator's tensor does not exist")
        is_outside = bool(table.number(10, "Q"))
        return Operator(name, version, is_custom, inputs, outputs, self._options(table), table.table(4), is_outside)

    def _options(self, table: Table) -> Source:
        start, size = table.number(9, "Q"), table.number(10, "Q")
        return self._source.part(start, size) if size else table.raw(5)


def _operator_code(table: Table) -> tuple[str, int, bool]:
    """Name, version, and whether it is a custom operator."""
    old, new = table.number(0, "b"), table.number(3, "i")
    code, version = (old if old < _OLD_FIELD_LIMIT else new), table.number(2, "i", 1)
    if code == _CUSTOM or new == _CUSTOM:
        return table.text(1) or "CUSTOM", version, True
    return OPERATORS[code] if 0 <= code < len(OPERATORS) else f"UNKNOWN_{code}", version, False


def _shape(table: Table) -> tuple[int | str, ...]:
    """Sizes; a dimension that the signature leaves open is named by its place."""
    shape, signature = table.numbers(0, "i"), table.numbers(7, "i")
    open_ones = {i for i, size in enumerate(signature) if size < 0} if len(signature) == len(shape) else set()
    return tuple(f"d{i}" if i in open_ones or size < 0 else size for i, size in enumerate(shape))


def _quantization(table: Table | None, source: Source) -> Quantization | None:
    if table is None:
        return None
    scales = table.numbers(2, "f")
    if not scales:
        return None
    zero_points = table.numbers(3, "q") or (0,) * len(scales)
    if len(zero_points) == 1:
        zero_points *= len(scales)
    if len(zero_points) != len(scales):
        raise source.broken(f"a tensor has {len(scales)} scales and {len(zero_points)} zero points")
    axis = table.number(6, "i") if len(scales) > 1 else None
    return Quantization(tuple(float(scale) for scale in scales), tuple(zero_points), axis)
