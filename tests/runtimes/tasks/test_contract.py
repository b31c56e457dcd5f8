"""Every task passes the contract suite, and every model is recognized as one of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import UsageError
from runtimes.model_files.facts import ModelFacts
from runtimes.task import named_outputs
from runtimes.tasks import load_task, recognize, task_ids


@pytest.mark.parametrize("name", task_ids())
def test_a_task_has_its_files_name_and_is_held_to_the_contract(name):
    assert load_task(name).id == name
    tree = ast.parse((Path(__file__).parent / f"test_{name}.py").read_text(encoding="utf-8"))
    bases = [base.id for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    assert "TaskContract" in bases


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        load_task("clasification")
    assert caught.value.hint == "did you mean 'classification'?"


def test_a_model_of_which_too_little_is_known_gives_tensors():
    task, _ = recognize(ModelFacts("model.null", "null"))
    assert task.id == "tensors"
    picture = TensorSpec("x", "float32", (1, 8, 8, 3))
    map_of_classes = TensorSpec("y", "float32", (1, 8, 8, 4))
    task, _ = recognize(ModelFacts("m", "onnx", (picture,), (map_of_classes,), output_operator="Softmax"))
    assert task.id == "segmentation"
    task, _ = recognize(ModelFacts("m", "onnx", (picture,), (map_of_classes,)))
    assert task.id == "segmentation"
    map_of_features = TensorSpec("y", "float32", (1, 4, 4, 64))
    task, _ = recognize(ModelFacts("m", "onnx", (picture,), (map_of_features,)))
    assert task.id == "tensors"


def test_outputs_under_other_names_are_matched_by_their_place():
    specs = (TensorSpec("a", "float32", (1,)), TensorSpec("b", "float32", (2,)))
    assert list(named_outputs({"x:0": 1, "x:1": 2}, specs).items()) == [("a", 1), ("b", 2)]
    assert named_outputs({"b": 2, "a": 1}, specs) == {"a": 1, "b": 2}
    assert named_outputs({"only": 1}, specs) == {"only": 1}
