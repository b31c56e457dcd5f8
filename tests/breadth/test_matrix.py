"""Which refusals count as naming the operation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("why", "ops"),
    [
        ("TensorRT 8.2 cannot build m.onnx: node 3 HardSwish 'act' (newer than opset 13)", ["HardSwish"]),
        ("the layer LeakyReLU does not map", ["LeakyReLU"]),
        ("Add the pictures of the task, and Relu6 is no word of this network", []),
        ("not supported", []),
    ],
)
def test_only_operations_of_the_network_are_named(tmp_path, monkeypatch, why, ops):
    onnx = pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(_HERE))
    import matrix

    (tmp_path / "network.json").write_text(json.dumps({"model": "m.keras", "inputs": [], "ops": ["LeakyReLU"]}))
    (tmp_path / "onnx-fp32").mkdir()
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(op, ["x"], ["y"]) for op in ("HardSwish", "Relu")]
    ends = [[helper.make_tensor_value_info(name, kind, [1])] for name in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends)), tmp_path / "onnx-fp32" / "m.onnx")
    assert matrix.named(why, tmp_path) == ops
