"""PyTorch archives: the parts of an exported model are read, and anything that could run code is refused."""

from __future__ import annotations

import json
import zipfile

import pytest

from runtimes.model_files.pt2 import pickles, unsafe_content

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture
def entries(models):
    with zipfile.ZipFile(models / "torch.pt2") as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def found(entries):
    return unsafe_content(entries, entries.__getitem__)


def replaced(entries, name, old, new):
    assert old in entries[name]
    return {**entries, name: entries[name].replace(old, new)}


def test_a_plain_model_is_accepted(entries):
    assert found(entries) is None
    assert pickles(entries) == ["data/sample_inputs/model.pt"]


@pytest.mark.parametrize(
    ("text", "taken"),
    [("B G H I D, B G H J D -> B G H I J", True), ("...ij,jk->...ik", True), ("a->__import__('os')", False)],
)
def test_the_axes_of_an_einsum_are_data(entries, text, taken):
    graph = json.loads(entries[GRAPH])
    node = graph["graph_module"]["graph"]["nodes"][0]
    node["inputs"].append({"name": "equation", "arg": {"as_string": text}, "kind": 1})
    assert (found({**entries, GRAPH: json.dumps(graph).encode()}) is None) == taken


@pytest.mark.parametrize(
    "name",
    ["data/aotinductor/model/model.so", "serialized_state_dict.pt", "data.pkl", "code/__torch__.py", "version"],
)
def test_an_entry_that_does_not_belong_is_refused(entries, name):
    assert found({**entries, name: b""}) == f"the entry '{name}'"


def test_two_entries_of_one_name_are_refused(entries):
    assert unsafe_content([*entries, GRAPH], entries.__getitem__) == "two entries of one name"


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save",
        "torch.ops.aten.__init__",
        "_operator.methodcaller",
        "_operator.call",
        "#something",
        "os.system",
    ],
)
def test_an_operator_that_reaches_out_is_refused(entries, target):
    assert "target" in found(replaced(entries, GRAPH, b"torch.ops.aten.matmul.default", target.encode()))


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.conv2d.default",
        "torch.sym_max",
        "_operator.getitem",
        "math.ceil",
        "torch.ops.aten.__and__.Tensor",
    ],
)
def test_an_operator_that_computes_is_accepted(entries, target):
    assert found(replaced(entries, GRAPH, b"torch.ops.aten.matmul.default", target.encode())) is None


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')",
        "Symbol('s1').func",
        "().__class__",
        "open('x')",
        "s0.func",
        "print(1)",
        "lambda: 1",
        "s0;s1",
        "Symbol('x')",
        "2.0.real",
    ],
)
def test_an_expression_with_more_than_arithmetic_is_refused(entries, expression):
    assert "expr str" in found(with_expression(entries, expression))


@pytest.mark.parametrize(
    "expression",
    [
        "s40",
        "2*s0 + 1",
        "Symbol('s40', positive=True, integer=True)",
        "Mul(Integer(3), Symbol('s16', positive=True, integer=True), Symbol('s82', positive=True, integer=True))",
        "GreaterThan(Symbol('u0', integer=True), Integer(0))",
        "Mod(s0, 2)//3",
        "Max(1, 0.5*u0)",
    ],
)
def test_arithmetic_is_accepted(entries, expression):
    assert found(with_expression(entries, expression)) is None


def with_expression(entries, expression):
    graph = json.loads(entries[GRAPH])
    graph["expr_str"] = expression
    return {**entries, GRAPH: json.dumps(graph).encode()}


@pytest.mark.parametrize("name", ['x"); import os', "x y", "x:os", "x\ny", "1x", "", "f()"])
def test_a_name_that_is_no_name_is_refused(entries, name):
    graph = json.loads(entries[GRAPH])
    graph["name"] = name
    assert "the name" in found({**entries, GRAPH: json.dumps(graph).encode()})


def test_a_key_that_is_no_name_is_refused(entries):
    graph = json.loads(entries[GRAPH])
    graph["x'); y("] = {}
    assert "the name" in found({**entries, GRAPH: json.dumps(graph).encode()})


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "collections.defaultdict", "context": '{"default_factory_module": "os"}', "children_spec": []},
        {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "os:system"}]', "children_spec": []},
        {"type": "somebody.Class", "context": "null", "children_spec": []},
    ],
)
def test_a_tree_that_imports_is_refused(entries, tree):
    graph = json.loads(entries[GRAPH])
    graph["in_spec"] = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [tree]}])
    assert "in spec" in found({**entries, GRAPH: json.dumps(graph).encode()})


@pytest.mark.parametrize(
    ("old", "new"), [(b'"use_pickle": false', b'"use_pickle": true'), (b"weight_0", b"custom_obj_0")]
)
def test_a_pickled_weight_is_refused(entries, old, new):
    assert found(replaced(entries, WEIGHTS, old, new)).startswith("the pickled object")
