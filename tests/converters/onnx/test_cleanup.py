"""The same graph gives the same bytes, whatever order and numbering an exporter used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WRITE = """
import hashlib, random, sys
import onnx
from onnx import TensorProto, helper
from converters.onnx.cleanup import tidy

seed = int(sys.argv[1])
draw = random.Random(seed)
kind = TensorProto.FLOAT
name = {part: f"{part}__{draw.randrange(1000)}" for part in ("left", "right", "sum", "a", "b", "unused")}
nodes = [
    helper.make_node("Mul", ["x", name["a"]], [name["left"]], name=f"left/Mul__{draw.randrange(1000)}"),
    helper.make_node("Mul", ["x", name["b"]], [name["right"]], name=f"right/Mul__{draw.randrange(1000)}"),
    helper.make_node("Add", [name["left"], name["right"]], [name["sum"]], name=f"Add__{draw.randrange(1000)}"),
    helper.make_node("Relu", [name["sum"]], ["y"], name="Relu"),
]
constants = [helper.make_tensor(name[one], kind, [2], [1.0, 2.0]) for one in ("a", "b", "unused")]
both = nodes[:2]
draw.shuffle(both)
draw.shuffle(constants)
graph = helper.make_graph(
    [*both, *nodes[2:]],
    "g",
    [helper.make_tensor_value_info("x", kind, [2])],
    [helper.make_tensor_value_info("y", kind, [2])],
    constants,
    doc_string=f"function {seed}",
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
tidy(model)
onnx.checker.check_model(model)
print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())
print(*(tensor.name for tensor in model.graph.initializer))
"""


def written(seed: int) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(seed)], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    return done.stdout.splitlines()


def test_two_orders_in_two_processes_give_the_same_bytes() -> None:
    pytest.importorskip("onnx", reason="reads and writes ONNX graphs")
    first, second = written(1), written(2)
    assert first == second
    assert len(first[1].split()) == 2  # the constant that nobody uses is gone
