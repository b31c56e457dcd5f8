"""Models with several signatures: all are listed, and one is chosen and converted with its own names."""

from __future__ import annotations

import numpy as np
import pytest

from converters.sources import source_of
from converters.sources.artifact import ArtifactSource, signature_names
from converters.sources.source import SourceOptions
from converters.tflite.names import signature_of
from converters.tflite.writer import serialize
from runtimes.errors import InputError, UsageError

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


def tensor(name, buffer=0, shape=(1, 3)):
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), schema.TensorType.FLOAT32, buffer
    return made


def graph(operator, inputs=2):
    """One operator of `inputs` inputs of three numbers."""
    made, one = schema.SubGraphT(), schema.OperatorT()
    made.tensors = [tensor(f"in{place}") for place in range(inputs)] + [tensor("out")]
    made.inputs, made.outputs = list(range(inputs)), [inputs]
    one.opcodeIndex, one.inputs, one.outputs = operator, made.inputs, made.outputs
    made.operators = [one]
    return made


def looping():
    """`while x < 8: x = x + x`, whose condition and body are the graphs 3 and 4."""
    outer, condition, body = graph(3, inputs=1), graph(2), graph(0)
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 3, 4
    outer.operators[0].builtinOptions, outer.operators[0].builtinOptionsType = (
        options,
        schema.BuiltinOptions.WhileOptions,
    )
    for one in (*outer.tensors, *condition.tensors, *body.tensors):
        one.shape = [1]
    condition.tensors[1].buffer, condition.tensors[2].type = 1, schema.TensorType.BOOL
    condition.inputs = [0]
    body.inputs, body.operators[0].inputs = [0], [0, 0]
    return outer, condition, body


@pytest.fixture
def several(tmp_path):
    """Three signatures: a sum, a difference whose inputs are turned, and a loop that calls two further graphs."""
    model = schema.ModelT()
    model.version, model.description = 3, b"several"
    codes = (
        schema.BuiltinOperator.ADD,
        schema.BuiltinOperator.SUB,
        schema.BuiltinOperator.LESS,
        schema.BuiltinOperator.WHILE,
    )
    model.operatorCodes = []
    for code in codes:
        one = schema.OperatorCodeT()
        one.builtinCode = one.deprecatedBuiltinCode = code
        one.version = 1
        model.operatorCodes.append(one)
    eight = schema.BufferT()
    eight.data = np.frombuffer(np.float32(8).tobytes(), np.uint8)
    model.buffers = [schema.BufferT(), eight]
    model.subgraphs = [graph(0), graph(1), *looping()]
    parts = {
        "sum": (0, {"a": 0, "b": 1}, {"total": 2}),
        "difference": (1, {"less": 1, "from": 0}, {"rest": 2}),
        "grow": (2, {"x": 0}, {"grown": 1}),
    }
    model.signatureDefs = []
    for name, (place, inputs, outputs) in parts.items():
        one = signature_of(name, inputs, outputs)
        one.subgraphIndex = place
        model.signatureDefs.append(one)
    path = tmp_path / "several.tflite"
    path.write_bytes(serialize(model))
    return path


def exported(path, out, signature=None):
    source = source_of(path)
    assert source.id == "signature"
    opened = source.open(path, SourceOptions(signature=signature))
    assert opened.format == "tflite"
    out.mkdir()
    return opened.export.run(out)


def answer(path, **feeds):
    model = interpreter.Interpreter(str(path))
    (name,) = model.get_signature_list()
    assert name == "serving_default"
    assert {one["name"] for one in model.get_input_details()} == set(feeds)
    (value,) = model.get_signature_runner()(**feeds).values()
    return value


def test_one_signature_becomes_a_model_with_its_own_names(several, tmp_path):
    a, b = np.float32([[5, 6, 7]]), np.float32([[1, 2, 4]])
    np.testing.assert_array_equal(answer(exported(several, tmp_path / "sum", "sum"), a=a, b=b), a + b)
    made = exported(several, tmp_path / "difference", "difference")
    np.testing.assert_array_equal(answer(made, **{"less": b, "from": a}), a - b)


def test_the_graphs_that_it_calls_stay(several, tmp_path):
    made = exported(several, tmp_path / "grow", "grow")
    np.testing.assert_array_equal(answer(made, x=np.float32([3])), [12])


def test_without_a_default_the_message_lists_them(several, tmp_path):
    with pytest.raises(UsageError, match="none is the default; it has sum, difference, grow") as caught:
        exported(several, tmp_path / "out")
    assert "--signature sum" in caught.value.hint
    with pytest.raises(UsageError, match="has no signature 'other'"):
        exported(several, tmp_path / "other", "other")


def test_inspect_lists_them(several):
    edge = pytest.importorskip("edge")
    assert edge.inspect(several).metadata["signatures"] == ["difference", "grow", "sum"]


def test_a_model_with_one_signature_has_nothing_to_choose(several, tmp_path):
    single = exported(several, tmp_path / "single", "sum")
    assert signature_names(single) == ("serving_default",)
    assert source_of(single).id == "artifact"
    assert ArtifactSource().open(single, SourceOptions(signature="serving_default")).export is None
    with pytest.raises(UsageError, match="has no signature 'sum'"):
        ArtifactSource().open(single, SourceOptions(signature="sum"))


def test_a_signature_of_a_graph_that_does_not_exist_is_refused(several):
    network = schema.ModelT.InitFromPackedBuf(several.read_bytes(), 0)
    network.signatureDefs[1].subgraphIndex = 9
    several.write_bytes(serialize(network))
    from converters.tflite.reader import read_tflite

    with pytest.raises(InputError, match="a signature names a graph"):
        read_tflite(several)
    with pytest.raises(InputError, match="a signature names a graph"):
        source_of(several)


@pytest.mark.slow
def test_one_signature_of_a_savedmodel(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    module = tensorflow.Module()
    module.factor = tensorflow.Variable(3.0)
    spec = tensorflow.TensorSpec([None, 2], tensorflow.float32, name="x")
    module.times = tensorflow.function(lambda x: {"product": x * module.factor}, input_signature=[spec])
    module.plus = tensorflow.function(lambda x: {"total": x + module.factor}, input_signature=[spec])
    signatures = {"times": module.times, "plus": module.plus}
    path, out = tmp_path / "model", tmp_path / "out"
    tensorflow.saved_model.save(module, str(path), signatures=signatures)
    out.mkdir()
    assert signature_names(path) == ("plus", "times")
    source = source_of(path)
    with pytest.raises(UsageError, match="it has plus, times"):
        source.open(path, SourceOptions())
    made = source.open(path, SourceOptions(signature="plus")).export.run(out)
    loaded = tensorflow.saved_model.load(str(made)).signatures
    assert list(loaded) == ["serving_default"]
    np.testing.assert_array_equal(loaded["serving_default"](x=tensorflow.ones([2, 2]))["total"], np.full((2, 2), 4))
    assert set(tensorflow.saved_model.load(str(path)).signatures) == {"plus", "times"}
