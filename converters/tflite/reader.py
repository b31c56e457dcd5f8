"""Read a TFLite file as plain values: tensors, operators, buffers. No library is needed; the file is untrusted.

Field numbers are positions in the tables of tflite/converter/schema/schema.fbs (LiteRT, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converters.wire.buffer import ByteSource
from converters.wire.flatbuffer import Table
from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.errors import InputError

_OPERATORS = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
    ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
    LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL
    FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
    REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
    HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
    HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
    ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
    DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
    STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
    STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
    STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
    STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
    STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
    STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""


OPERATORS: tuple[str, ...] = tuple(_OPERATORS.split())

_CUSTOM = OPERATORS.index("CUSTOM")
# Operator codes below 127 are in the old one-byte field, whatever the new field contains (schema v3a).
_OLD_FIELD_LIMIT = 127
OUTSIDE_FROM = 1  # a buffer's data is stored behind the FlatBuffer if its offset is larger than this


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor.

    Attributes:
        spec: Name, dtype, shape and quantization.
        constant_bytes: The size of its data; 0 if it is computed.
        data: The bytes of its data.
        is_variable: Whether it keeps its value from one inference to the next.
        is_outside: Whether its data is stored behind the FlatBuffer, as in large files and by some quantizers.
    """

    spec: TensorSpec
    constant_bytes: int
    data: ByteSource
    is_variable: bool
    is_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator.

    Attributes:
        name: Its name in the schema ("CONV_2D"), or its custom code.
        version: The version of the operator.
        is_custom: Whether it is a custom operator.
        inputs: Indices of its input tensors; −1 for an omitted optional input.
        outputs: Indices of its output tensors.
        options: The option bytes of a custom operator.
        builtin_options: The option table of a built-in operator (Conv2DOptions, ...).
        has_outside_options: Whether its custom options are stored behind the FlatBuffer.
    """

    name: str
    version: int
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: ByteSource
    builtin_options: Table | None
    has_outside_options: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One subgraph of a model; inputs and outputs index its tensors."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def specs(self, indices: tuple[int, ...]) -> tuple[TensorSpec, ...]:
        """Return the specs of the tensors with these indices."""
        return tuple(self.tensors[index].spec for index in indices)


@dataclass(frozen=True, kw_only=True)
class TfliteModel:
    """A model.

    Attributes:
        description: The description in the file.
        graphs: Its subgraphs; the first one is the main graph.
        metadata: The bytes of each metadata entry, by name.
        signatures: The index of the graph of each signature, by name.
    """

    description: str
    graphs: tuple[Graph, ...]
    metadata: Mapping[str, ByteSource]
    signatures: Mapping[str, int] = field(default_factory=dict)


def is_quantized(path: Path) -> bool:
    """Return whether weights or activations of the main graph are 8-bit numbers with scales."""
    return any(
        tensor.spec.quantization is not None and tensor.spec.dtype in ("int8", "uint8")
        for tensor in read_tflite(path).graphs[0].tensors
    )


def read_tflite(path: Path) -> TfliteModel:
    """Read a `.tflite` file. Raises InputError if it is broken. Weights are not loaded."""
    source = ByteSource.open(path)
    if bytes(source.view[4:8]) != b"TFL3":
        raise InputError(f"{path} is not a TFLite model", "check how the file was made or copied")
    return _Reader(source).model()


def signatures_in(path: Path) -> tuple[str, ...]:
    """Return the names of the signatures of a `.tflite` file, without reading the rest of it."""
    source = ByteSource.open(path)
    return tuple(_signatures(source, Table.root(source))) if bytes(source.view[4:8]) == b"TFL3" else ()


def _signatures(source: ByteSource, root: Table) -> dict[str, int]:
    """Return the index of the graph of each signature, by name."""
    found, graphs = {one.text(2): one.number(4, "I") for one in root.tables(7)}, len(root.tables(2))
    if any(index >= graphs for index in found.values()):
        raise source.broken("a signature names a graph that it does not have")
    return found


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._root = Table.root(source)
        self._codes = [_operator_code(code) for code in self._root.tables(1)]
        self._buffers = self._root.tables(4)

    def model(self) -> TfliteModel:
        graphs = tuple(self._graph(table) for table in self._root.tables(2))
        if not graphs:
            raise self._source.broken("it contains no graph")
        return TfliteModel(
            description=self._root.text(3),
            graphs=graphs,
            metadata=self._metadata(),
            signatures=_signatures(self._source, self._root),
        )

    def _metadata(self) -> dict[str, ByteSource]:
        return {entry.text(0): self._buffer(entry.number(1, "I")).raw(0) for entry in self._root.tables(6)}

    def _graph(self, table: Table) -> Graph:
        tensors = tuple(self._tensor(one) for one in table.tables(0))
        inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
        if not all(0 <= index < len(tensors) for index in (*inputs, *outputs)):
            raise self._source.broken("an input or output of the graph is not one of its tensors")
        return Graph(
            tensors=tensors,
            operators=tuple(self._operator(one, len(tensors)) for one in table.tables(3)),
            inputs=inputs,
            outputs=outputs,
        )

    def _tensor(self, table: Table) -> Tensor:
        kind = table.number(1, "b")
        if not 0 <= kind < len(DTYPES):
            raise self._source.unsupported(f"has a tensor of the type {kind}")
        spec = TensorSpec(
            name=table.text(3),
            dtype=DTYPES[kind],
            shape=_shape(table),
            quantization=_quantization(table.table(4), self._source),
        )
        data, is_outside = self._constant(table.number(2, "I"))
        return Tensor(
            spec=spec,
            constant_bytes=len(data.view),
            data=data,
            is_variable=bool(table.number(5, "b")),
            is_outside=is_outside,
        )

    def _constant(self, index: int) -> tuple[ByteSource, bool]:
        """Return the bytes of a tensor's data, and whether they are stored behind the FlatBuffer."""
        if index == 0:  # by convention the empty buffer of computed tensors; some files omit it
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
        return Operator(
            name=name,
            version=version,
            is_custom=is_custom,
            inputs=inputs,
            outputs=outputs,
            options=self._options(table),
            builtin_options=table.table(4),
            has_outside_options=is_outside,
        )

    def _options(self, table: Table) -> ByteSource:
        start, size = table.number(9, "Q"), table.number(10, "Q")
        return self._source.part(start, size) if size else table.raw(5)


def _operator_code(table: Table) -> tuple[str, int, bool]:
    """Return the name, the version, and whether it is a custom operator."""
    old, new = table.number(0, "b"), table.number(3, "i")
    code, version = (old if old < _OLD_FIELD_LIMIT else new), table.number(2, "i", 1)
    if code == _CUSTOM or new == _CUSTOM:
        return table.text(1) or "CUSTOM", version, True
    return OPERATORS[code] if 0 <= code < len(OPERATORS) else f"UNKNOWN_{code}", version, False


def _shape(table: Table) -> tuple[int | str, ...]:
    """Return the sizes. A dimension that the shape signature leaves free is named after its index."""
    shape, signature = table.numbers(0, "i"), table.numbers(7, "i")
    free = {i for i, size in enumerate(signature) if size < 0} if len(signature) == len(shape) else set()
    return tuple(f"d{i}" if i in free or size < 0 else size for i, size in enumerate(shape))


def _quantization(table: Table | None, source: ByteSource) -> Quantization | None:
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


# The names are numpy's where numpy has the type.
_DTYPES = """
    float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant
    uint32 uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2
"""


DTYPES: tuple[str, ...] = tuple(_DTYPES.split())
