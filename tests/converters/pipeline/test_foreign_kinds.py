"""Kinds of models that no target here can hold are refused in one line that names what they have."""

from __future__ import annotations

import numpy as np
import pytest

import edge
from runtimes.errors import EdgeError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def trees(path, with_zip_map):
    """Write a decision tree as sklearn's exporter does, with its probabilities in a list of dictionaries or plain."""
    helper, kinds = onnx.helper, onnx.TensorProto
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        "tree",
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 1],
        class_weights=[1.0, 1.0],
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )
    nodes = [tree]
    outputs = [helper.make_tensor_value_info("label", kinds.INT64, ["n"])]
    if with_zip_map:
        nodes.append(
            helper.make_node("ZipMap", ["scores"], ["named"], "named", domain="ai.onnx.ml", classlabels_int64s=[0, 1])
        )
        value = helper.make_tensor_type_proto(kinds.FLOAT, [])
        maps = helper.make_sequence_type_proto(helper.make_map_type_proto(kinds.INT64, value))
        outputs.append(helper.make_value_info("named", maps))
    else:
        outputs.append(helper.make_tensor_value_info("scores", kinds.FLOAT, ["n", 2]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 2])], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("with_zip_map", "target", "words"), [(True, "onnx", "ZipMap"), (False, "openvino", "TreeEnsembleClassifier")]
)
def test_trees_of_sklearn_are_refused_by_their_operator(tmp_path, with_zip_map, target, words):
    path = trees(tmp_path / "trees.onnx", with_zip_map)
    with pytest.raises(EdgeError) as caught:
        edge.convert(path, tmp_path / "made", format=target, precision="fp32")
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in caught.value.message


def test_trees_with_plain_probabilities_stay_onnx_and_answer_the_same(tmp_path):
    path = trees(tmp_path / "trees.onnx", False)
    edge.convert(path, tmp_path / "made", format="onnx", precision="fp32")
    with edge.open(path) as source, edge.open(tmp_path / "made") as model:
        for values in ([[0.2, 9.0]], [[0.8, 9.0]]):
            feeds = {"x": np.float32(values)}
            np.testing.assert_array_equal(model.run(feeds)["scores"], source.run(feeds)["scores"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' own saving
def test_a_keras_model_that_takes_text_is_refused_by_its_input(tmp_path):
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    words = keras.Input((1,), dtype="string", name="words")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"], name="lookup")
    keras.Model(words, keras.layers.Embedding(3, 4)(lookup(words))).save(tmp_path / "words.keras")
    with pytest.raises(EdgeError, match="'words'") as caught:
        edge.convert(tmp_path / "words.keras", tmp_path / "made", format="tflite", precision="fp32")
    assert "\n" not in caught.value.message
    assert caught.value.hint
