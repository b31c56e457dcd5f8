"""Recurrent layers of ONNX become steps with the same results."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx.recurrent import unroll_recurrent
from converters.onnx_to_tflite import OnnxToTflite
from converters.options import ConvertOptions
from runtimes.artifact import Artifact
from runtimes.errors import EngineError
from runtimes.registry import for_format
from runtimes.session import RunOptions

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, WIDTH, HIDDEN = 6, 2, 3, 5


def network(kind, direction="forward", *, states=True, bias=True, lengths=False, **attributes):
    """A model of one recurrent layer, and an input for it."""
    helper, floats, rng = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(1)
    count = 2 if direction == "bidirectional" else 1
    gates, has_cell = GATES[kind] * HIDDEN, kind == "LSTM"
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    weights = {"w": normal(count, gates, WIDTH), "r": normal(count, gates, HIDDEN), "b": normal(count, 2 * gates)}
    inputs = ["x", "w", "r", "b" if bias else "", "lengths" if lengths else ""]
    feeds = {"x": normal(STEPS, BATCH, WIDTH)}
    if states:
        feeds |= {name: normal(count, BATCH, HIDDEN) for name in ("h", "c")[: 1 + has_cell]}
        inputs += list(feeds)[1:]
    names = ["y", "y_h", "y_c"][: 2 + has_cell]
    node = helper.make_node(kind, inputs, names, hidden_size=HIDDEN, direction=direction, **attributes)
    constants = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    constants.append(onnx.numpy_helper.from_array(np.full(BATCH, STEPS - 2, np.int32), "lengths"))
    taken = [helper.make_tensor_value_info(name, floats, values.shape) for name, values in feeds.items()]
    given = [helper.make_tensor_value_info(name, floats, None) for name in names]
    graph = helper.make_graph([node], "g", taken, given, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), feeds


def answers(model, feeds):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"states": False, "bias": False}),
        ("LSTM", {"direction": "bidirectional"}),
        ("GRU", {"direction": "reverse"}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"direction": "bidirectional", "states": False}),
        ("RNN", {"direction": "bidirectional"}),
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Sigmoid"]}),
        ("GRU", {"direction": "reverse", "activations": ["Tanh", "Relu"]}),
    ],
)
def test_the_steps_answer_as_the_layer(kind, options):
    model, feeds = network(kind, **options)
    expected = answers(model, feeds)
    unroll_recurrent(model, {name: values.shape for name, values in feeds.items()})
    assert kind not in {node.op_type for node in model.graph.node}
    for mine, other in zip(expected, answers(model, feeds), strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lengths": True}, "sequence_lens"),
        ({"clip": 3.0}, "the attribute clip"),
        ({"activations": ["Sigmoid", "Tanh", "Softsign"]}, "the activation Softsign"),
    ],
)
def test_what_is_not_written_here_is_refused_by_name(options, words):
    model, feeds = network("LSTM", **options)
    with pytest.raises(EngineError, match=rf"node 'y' \(LSTM\) is not converted: it has .*{words}"):
        unroll_recurrent(model, {name: values.shape for name, values in feeds.items()})


def test_a_sequence_of_unknown_length_stays():
    model, _ = network("LSTM")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    unroll_recurrent(model, {})
    assert [node.op_type for node in model.graph.node] == ["LSTM"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "direction"), [("LSTM", "forward"), ("GRU", "bidirectional")])
def test_tflite_answers_as_the_layer_with_states_as_inputs_and_outputs(tmp_path, kind, direction):
    pytest.importorskip("ai_edge_litert")
    model, feeds = network(kind, direction)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "layer.onnx")
    (tmp_path / "out").mkdir()
    options = ConvertOptions(precision="fp32", batch=BATCH)
    path = OnnxToTflite().convert(tmp_path / "layer.onnx", tmp_path / "out", options, None).model
    with for_format("tflite").open(Artifact.open(path), RunOptions()) as session:
        given = session.run(feeds)
    assert list(given) == [value.name for value in model.graph.output]
    for expected, actual in zip(answers(model, feeds), given.values(), strict=True):
        np.testing.assert_allclose(actual.reshape(expected.shape), expected, atol=1e-5)
