"""TFLite files read without a library, compared with the library generated from the schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.tflite.reader import DTYPES, OPERATORS, read_tflite
from converters.wire.buffer import MAX_STEPS, ByteSource
from converters.wire.flatbuffer import Table
from runtimes.errors import InputError
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "tests" / "runtimes" / "models"


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


def numbers_of(enum: type) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if not name.startswith("_")}


def test_operators_have_the_schemas_numbers(schema):
    assert dict(enumerate(OPERATORS)) == numbers_of(schema.BuiltinOperator)


def test_dtypes_have_the_schemas_numbers(schema):
    assert dict(enumerate(DTYPES)) == {number: name.lower() for number, name in numbers_of(schema.TensorType).items()}


@pytest.mark.parametrize("path", [MODELS / "litert.tflite", MODELS / "quantized.tflite"], ids=lambda path: path.name)
def test_tiny_models_read_as_the_library_reads_them(schema, path):
    check_against_library(schema, path)


@pytest.mark.data
def test_real_models_read_as_the_library_reads_them(schema):
    paths = sorted(path for folder in ("edgetpu", "mobilenet_v2") for path in real_data(folder).rglob("*.tflite"))
    assert len(paths) >= 10
    for path in paths:
        check_against_library(schema, path)


def check_against_library(schema, path: Path) -> None:
    content = path.read_bytes()
    library = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model = read_tflite(path)
    assert model.description == (library.description or b"").decode()
    assert set(model.metadata) == {entry.name.decode() for entry in library.metadata or []}
    assert len(model.graphs) == len(library.subgraphs)
    for graph, theirs in zip(model.graphs, library.subgraphs, strict=True):
        assert graph.inputs == tuple(theirs.inputs)
        assert graph.outputs == tuple(theirs.outputs)
        assert [one.name for one in graph.operators] == [name_of(schema, library, one) for one in theirs.operators]
        for tensor, other in zip(graph.tensors, theirs.tensors, strict=True):
            check_tensor(tensor, other, library)


def name_of(schema, library, operator) -> str:
    code = library.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return code.customCode.decode() if code.customCode else numbers_of(schema.BuiltinOperator)[builtin]


def check_tensor(tensor, theirs, library) -> None:
    data = library.buffers[theirs.buffer].data if library.buffers else None
    scales = theirs.quantization.scale if theirs.quantization else None
    assert tensor.spec.name == (theirs.name or b"").decode()
    assert tensor.spec.dtype == DTYPES[theirs.type]
    assert len(tensor.spec.shape) == len(theirs.shape if theirs.shape is not None else ())
    assert tensor.constant_bytes == (len(data) if data is not None else 0)
    if scales is None or len(scales) == 0:
        assert tensor.spec.quantization is None
    else:
        assert tensor.spec.quantization.scales == pytest.approx(tuple(scales))
        assert tensor.spec.quantization.zero_points == tuple(theirs.quantization.zeroPoint)


def test_a_free_dimension_is_named_by_its_place():
    graph = read_tflite(MODELS / "litert.tflite").graphs[0]
    assert {spec.shape for spec in graph.specs(graph.inputs)} == {("d0", 4), ("d0", 3)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1c\0\0\0TFL3", "points outside"),
        (b"\xff\xff\xff\xffTFL3" + bytes(64), "points outside"),
        (b"\x08\0\0\0TFL3\xf8\xff\xff\x7f" + bytes(64), "points outside"),
        (b"\x08\0\0\0nope" + bytes(64), "is not a TFLite model"),
    ],
)
def test_offsets_that_lead_nowhere_are_an_input_error(tmp_path, content, words):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_tflite(path)


def test_a_small_file_cannot_ask_for_endless_work():
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = flatbuffers.Builder(0)
    builder.StartObject(1)
    leaf = builder.EndObject()
    for _ in range(4):  # each level points 1000 times to the one below: 10^12 leaves in some 16 kB
        builder.StartVector(4, 1000, 4)
        for _ in range(1000):
            builder.PrependUOffsetTRelative(leaf)
        vector = builder.EndVector()
        builder.StartObject(1)
        builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        leaf = builder.EndObject()
    builder.Finish(leaf)

    def walk(table: Table) -> None:
        for child in table.tables(0):
            walk(child)

    assert len(builder.Output()) < 20_000
    with pytest.raises(InputError, match="edge's limit against malicious files"):
        walk(Table.root(ByteSource(memoryview(bytes(builder.Output())), "bomb", [MAX_STEPS // 100])))


def test_what_is_no_plain_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        ByteSource.open(tmp_path / "missing.tflite")
    with pytest.raises(InputError, match=r"cannot be read|is not a plain file"):
        ByteSource.open(tmp_path)
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(InputError, match="is empty"):
        ByteSource.open(tmp_path / "empty.tflite")
