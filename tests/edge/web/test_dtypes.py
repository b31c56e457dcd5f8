"""Inputs and outputs of dtypes that an engine of the page lacks, or that few models have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

import edge
from runtimes.artifact import Artifact
from runtimes.errors import RefusedError
from tests.converters.tflite.test_end_dtypes import KINDS, network
from tests.npm import need_engines


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., Artifact]:
    """Converts the content of a .tflite: `converted(content, precision="fp32")`."""

    def convert(content: bytes, precision: str | None = None) -> Artifact:
        need_engines()
        (tmp_path / "m.tflite").write_bytes(content)
        made = edge.convert(tmp_path / "m.tflite", tmp_path / "made", format="browser", precision=precision)
        assert made.artifact is not None
        return Artifact.open(made.artifact)

    return convert


@pytest.mark.parametrize(("dtype", "wanted"), [("int8", "uint8"), ("int16", "int32")])
def test_quantized_ends_of_other_dtypes_are_proven_in_the_page(page, serve, converted, dtype, wanted) -> None:
    made = converted(network(dtype, 0.05, operator=KINDS.ADD), "int8")
    assert [spec.dtype for spec in (*made.manifest.inputs, *made.manifest.outputs)] == [wanted, wanted]
    opened = page(serve(made.path))
    assert opened.state == "passed", opened.text("main")
    assert made.manifest.proof["metrics"]["max_abs"] == 0


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_wide_numbers_and_truth_values_are_proven_in_the_page(page, serve, converted, dtype) -> None:
    opened = page(serve(converted(network(dtype), "fp32").path))
    assert opened.state == "passed", opened.text("main")


def test_a_dtype_that_no_other_holds_is_refused_by_name(converted) -> None:
    with pytest.raises(RefusedError, match=r"LiteRT\.js does not take uint64, which 'x' of m\.tflite is"):
        converted(network("uint64"), "fp32")


def test_a_model_without_inputs_is_proven_in_the_page(page, serve, tmp_path) -> None:
    need_engines()
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.float32([[-1, 2, 3]]), "w")
    nodes = [helper.make_node("Relu", ["w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", kind, [1, 3])], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    made = edge.convert(tmp_path / "m.onnx", tmp_path / "made", format="browser", precision="fp32").artifact
    opened = page(serve(made))
    assert opened.state == "passed", opened.text("main")
