"""ONNX models with local functions and sparse constants reach every format that plain ones reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge
from converters.onnx.fixed_shapes import is_plain, write_plain
from runtimes.artifact import Artifact, sha256

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
ROWS, WIDTH = 8, 4


def network(path: Path, *, functions: bool = False, sparse: bool = False, coordinates: bool = False) -> Path:
    """x·w, whose sigmoid linear unit is a function of the file, or whose weights are mostly zeros."""
    dense = np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(np.float32)
    weights = []
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"])]
    values = [helper.make_tensor_value_info(*one) for one in (("x", FLOAT, ["n", ROWS]), ("y", FLOAT, ["n", WIDTH]))]
    if functions:
        body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
        own = [helper.make_function("mine", "Silu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])]
        nodes.append(helper.make_node("Silu", ["m"], ["y"], domain="mine"))
    else:
        own = []
        nodes.append(helper.make_node("Relu", ["m"], ["y"]))
    if not sparse:
        weights.append(numpy_helper.from_array(dense, "w"))
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    if sparse:
        places = np.array([1, 6, 31])
        some = numpy_helper.from_array(dense.reshape(-1)[places], "w")
        found = np.stack(np.unravel_index(places, dense.shape), axis=1) if coordinates else places
        tensor = helper.make_sparse_tensor(some, numpy_helper.from_array(found.astype(np.int64), "places"), dense.shape)
        graph.sparse_initializer.append(tensor)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("mine", 1)] if functions else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=own, ir_version=8), path)
    return path


def answer(path: Path, values):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": values})[0]


KINDS = [{"functions": True}, {"sparse": True}, {"functions": True, "sparse": True, "coordinates": True}]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_model_answers_the_same(tmp_path, kind):
    model = network(tmp_path / "model.onnx", **kind)
    assert not is_plain(model)
    plain = write_plain(model, tmp_path / "plain")
    assert is_plain(plain)
    values = np.random.default_rng(2).normal(size=(3, ROWS)).astype(np.float32)
    np.testing.assert_allclose(answer(plain, values), answer(model, values), rtol=1e-5)
    assert is_plain(network(tmp_path / "usual.onnx"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_converts_and_the_artifact_names_the_users_file(tmp_path, kind):
    pytest.importorskip("openvino")
    model = network(tmp_path / "model.onnx", **kind)
    targets = ({"format": "openvino"}, {"device": "jetson-nano"}, {"format": "onnx", "precision": "fp16"})
    for number, target in enumerate(targets):
        result = edge.convert(model, tmp_path / f"out{number}", **target)
        source = Artifact.open(result.artifact).manifest.source
        assert (source["name"], source["sha256"]) == ("model.onnx", sha256(model))
    assert edge.check(model, "jetson-nano").runs
