"""Real data where they are there, and a small ONNX classifier."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

# A shell that starts the tests in the background has them ignore Ctrl+C, and every program that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of EDGE_DATA; a test is skipped where nobody named one and the default is absent."""
    folder = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir() and "EDGE_DATA" not in os.environ:
        pytest.skip("no real data: set EDGE_DATA")
    return folder


@pytest.fixture
def classifier(tmp_path) -> Path:
    """`classifier.onnx`: a dense softmax classifier of pictures, [1, 4, 4, 3] → [1, 5], opset 13."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(5).normal(0, 0.6, (48, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", kind, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("scores", kind, [1, 5])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "classifier.onnx"
    path.write_bytes(model.SerializeToString())
    return path
