"""A source that ONNX Runtime has no kernel for is run by ONNX's reference implementation, and a note says so."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx.reference_session import is_reference, open_source_session
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact
from runtimes.errors import EngineError
from runtimes.registry import open_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
INT16, FLOAT = onnx.TensorProto.INT16, onnx.TensorProto.FLOAT


def saved(path, op, kind, domain=""):
    ports = [onnx.helper.make_tensor_value_info(name, kind, [3]) for name in "xyz"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["x", "y"], ["z"], domain=domain)], "g", ports[:2], ports[2:]
    )
    opsets = [onnx.helper.make_opsetid("", 13), *([onnx.helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return Artifact.open(path)


def test_it_runs_what_the_engine_has_no_kernel_for(tmp_path):
    artifact = saved(tmp_path / "min.onnx", "Min", INT16)
    with pytest.raises(EngineError, match="Could not find an implementation"), open_session(artifact):
        pass
    with open_source_session(artifact) as session:
        assert is_reference(session)
        answer = session.run({"x": np.array([1, -5, 3], np.int16), "y": np.array([2, -9, 3], np.int16)})["z"]
    assert answer.tolist() == [1, -9, 3]
    assert answer.dtype == np.int16


def test_the_engine_runs_what_it_can_and_its_error_stands_where_the_reference_fails_too(tmp_path):
    with open_source_session(saved(tmp_path / "min.onnx", "Min", FLOAT)) as session:
        assert not is_reference(session)
    unknown = saved(tmp_path / "unknown.onnx", "NoSuchOperator", FLOAT, "elsewhere")
    with pytest.raises(Exception, match="onnxruntime") as refusal, open_source_session(unknown):
        pass
    assert "NoSuchOperator" in str(refusal.value)


def test_such_a_source_is_converted_and_the_note_says_what_ran_it(tmp_path):
    pytest.importorskip("openvino")
    artifact = saved(tmp_path / "min.onnx", "Min", INT16)
    (tmp_path / "out").mkdir()
    request = ConvertRequest(
        source=artifact.model,
        steps=("onnx_to_openvino",),
        format="openvino",
        options=ConvertOptions(),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
    )
    result = convert(request, lambda _: None)
    assert result.proof["passed"]
    assert any("reference implementation ran it" in note for note in result.notes)
    with open_session(Artifact.open(tmp_path / "out")) as session:
        answer = session.run({"x": np.array([1, -5, 3], np.int16), "y": np.array([2, -9, 3], np.int16)})["z"]
    assert answer.tolist() == [1, -9, 3]
