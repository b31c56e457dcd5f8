"""Which inputs index a table, and how many rows that table has, in files of every format."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.input_roles import InputRole, input_roles
from converters.library_calls import suppress_output
from runtimes.artifact import Artifact, TensorSpec
from runtimes.registry import open_session


def _onnx(tmp_path, nodes, constants, inputs):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    kinds = {name: (onnx.TensorProto.INT64 if kind == "int64" else onnx.TensorProto.FLOAT) for name, kind, _ in inputs}
    graph = helper.make_graph(
        [helper.make_node(op, list(ins), [out], **attributes) for op, ins, out, attributes in nodes],
        "g",
        [helper.make_tensor_value_info(name, kinds[name], list(shape)) for name, _, shape in inputs],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path, [TensorSpec(name, kind, tuple(shape)) for name, kind, shape in inputs]


def _table(*shape):
    return np.zeros(shape, np.float32)


def test_onnx_through_a_cast_and_a_reshape_with_mask_and_parts(tmp_path):
    nodes = [
        ("Cast", ["ids"], "c", {"to": 6}),
        ("Unsqueeze", ["c", "one"], "u", {}),
        ("Gather", ["words", "u"], "w", {}),
        ("Gather", ["kinds", "types"], "k", {}),
        ("Add", ["w", "k"], "y", {}),
    ]
    text = ("batch", "length")
    inputs = [
        ("ids", "int64", text),
        ("attention_mask", "int64", text),
        ("types", "int64", text),
        ("x", "float32", (3,)),
    ]
    constants = {"words": _table(321, 4), "kinds": _table(2, 4), "one": np.array([1])}
    roles = input_roles(*_with_format(_onnx(tmp_path, nodes, constants, inputs), "onnx"))
    assert roles == {
        "ids": InputRole(rows=321),
        "types": InputRole(rows=2, is_segments=True),
        "attention_mask": InputRole(is_mask=True),
    }


def _with_format(found, model_format):
    return found[0], model_format, found[1]


def test_onnx_on_another_axis_and_from_a_quantized_table(tmp_path):
    nodes = [
        ("DequantizeLinear", ["bytes", "scale"], "words", {}),
        ("Gather", ["words", "ids"], "y", {"axis": 1}),
    ]
    constants = {"bytes": np.zeros((4, 77), np.uint8), "scale": np.array(0.5, np.float32)}
    found = _onnx(tmp_path, nodes, constants, [("ids", "int64", (1, 5))])
    assert input_roles(*_with_format(found, "onnx")) == {"ids": InputRole(rows=77)}


def test_an_integer_that_selects_from_a_computed_tensor_indexes_no_table(tmp_path):
    nodes = [("Relu", ["x"], "r", {}), ("Gather", ["r", "place"], "y", {})]
    found = _onnx(tmp_path, nodes, {}, [("x", "float32", (4, 3)), ("place", "int64", (2,))])
    assert input_roles(*_with_format(found, "onnx")) == {}


@pytest.mark.parametrize("kind", ["sequential", "functional", "nested"])
def test_keras_embeddings_whose_ids_are_floats(tmp_path, kind):
    pytest.importorskip("tensorflow")
    path = tmp_path / "model.keras"
    with suppress_output():
        keras = pytest.importorskip("keras")
        layers = keras.layers
        if kind == "sequential":
            model = keras.Sequential([layers.Input((7,), name="ids"), layers.Embedding(55, 4), layers.Flatten()])
        else:
            ids, other = layers.Input((7,), name="ids"), layers.Input((7,), name="other")
            tower = keras.Sequential([layers.Input((7,)), layers.Embedding(55, 4)]) if kind == "nested" else None
            words = tower(ids) if tower else layers.Embedding(55, 4)(ids)
            model = keras.Model([ids, other], layers.Concatenate()([layers.Flatten()(words), other]))
        model.save(path)
    inputs = [TensorSpec(tensor.name, "float32", ("batch", 7)) for tensor in model.inputs]
    assert input_roles(path, "keras", inputs) == {"ids": InputRole(rows=55)}


def test_pytorch(tmp_path):
    torch = pytest.importorskip("torch")

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(91, 4)

        def forward(self, ids):
            return self.table(ids.to(torch.int32)).sum(1)

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Words().eval(), (torch.zeros(1, 6, dtype=torch.int64),)), path)
    assert input_roles(path, "pt2", [TensorSpec("ids", "int64", (1, 6))]) == {"ids": InputRole(rows=91)}


def test_tensorflow(tmp_path):
    with suppress_output():
        tensorflow = pytest.importorskip("tensorflow")

    class Words(tensorflow.Module):
        def __init__(self):
            super().__init__()
            self.table = tensorflow.Variable(tensorflow.ones((91, 4)))

        @tensorflow.function(input_signature=[tensorflow.TensorSpec((1, 6), tensorflow.int32, name="ids")])
        def __call__(self, ids):
            return {"y": tensorflow.reduce_sum(tensorflow.gather(self.table, ids), 1)}

    words, lite = Words(), tensorflow.lite.TFLiteConverter
    path = tmp_path / "model.tflite"
    with suppress_output():
        tensorflow.saved_model.save(words, str(tmp_path / "saved"), signatures=words.__call__)
        path.write_bytes(lite.from_concrete_functions([words.__call__.get_concrete_function()], words).convert())
    specs = [TensorSpec("ids", "int32", (1, 6))]
    assert input_roles(tmp_path / "saved", "savedmodel", specs) == {"ids": InputRole(rows=91)}
    with open_session(Artifact.open(path)) as session:
        (role,) = input_roles(path, "tflite", session.inputs).values()
    assert role == InputRole(rows=91)
