"""The sum of all judged conversions: a model counts once, and what is wrong is never hidden."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.breadth import judged
from tests.breadth.judged import outcomes, page

onnx = pytest.importorskip("onnx")
helper = onnx.helper


def store(folder, name, *rows):
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_every_suite_counts_and_the_later_of_two_results(tmp_path):
    store(
        tmp_path,
        "node_tests.jsonl",
        {"case": "a", "target": "openvino", "state": "right", "model": "1"},
        {"case": "a_expanded", "target": "openvino", "state": "right", "model": "1"},
        {"case": "b", "target": "openvino", "state": "WRONG", "model": "2"},
        {"case": "b", "target": "openvino", "state": "right", "model": "2"},
        {"case": "b", "target": "tflite", "state": "refused", "model": "2"},
    )
    store(tmp_path, "results.jsonl", {"library": "keras", "network": "N", "target": "onnx fp32", "state": "pass"})
    store(tmp_path, "real_files.jsonl", {"model": "m.onnx", "target": "openvino", "state": "WRONG"})
    text = page(list(outcomes(tmp_path)))
    assert "5 conversions of 4 different models passed the proof: 4 judged right, 1 wrong." in text
    assert "| node tests | openvino | 3 | 3 | 0 | 2 |" in text
    assert "| node tests | tflite | 0 | 0 | 0 | 0 |" in text
    assert "| real files | openvino | 1 | 0 | 1 | 1 |" in text


def branch(name, operator="Add", value=1.0):
    constant = onnx.numpy_helper.from_array(np.full(2, value, np.float32), f"{name}_c")
    ports = [helper.make_tensor_value_info(f"{name}_{one}", onnx.TensorProto.FLOAT, [2]) for one in "xy"]
    node = helper.make_node(operator, [f"{name}_x", f"{name}_c"], [f"{name}_y"], name=name)
    return helper.make_model(helper.make_graph([node], name, ports[:1], ports[1:], [constant]), producer_name=name)


def test_models_that_differ_in_names_alone_are_one():
    from tests.breadth.node_tests import fingerprint

    assert fingerprint(branch("one")) == fingerprint(branch("other"))
    assert len({fingerprint(one) for one in (branch("a"), branch("a", "Mul"), branch("a", value=2.0))}) == 3


def test_a_thousand_models_passed_and_none_is_wrong():
    found = list(outcomes(judged._HERE))
    assert [one for one in found if one.is_right is False] == []
    assert len({one.model for one in found if one.is_right}) >= 1000
    docs = judged._HERE.parents[1] / "docs" / "reference" / "conversions.md"
    assert ", 0 wrong." in docs.read_text()


def test_a_folder_of_models_becomes_cases(tmp_path):
    pytest.importorskip("onnxruntime")
    from tests.breadth.case_files import case_files

    onnx.save(branch("one"), tmp_path / "one.onnx")
    np.savez(tmp_path / "one.npz", one_x=np.array([[5, 6], [7, 8]], np.float32))
    (case,) = case_files(tmp_path)
    assert [value.tolist() for value in (*case.inputs, *case.outputs)] == [[5, 6], [6, 7]]
