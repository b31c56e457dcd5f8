"""A conversion whose engine answers the same input differently later fails, and says which inference differed."""

from __future__ import annotations

import pytest

import converters.pipeline.candidate as pipeline
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact
from runtimes.errors import ProofError
from runtimes.registry import new_session
from runtimes.session import Closeable

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Garbage(Closeable):
    """A session whose answers are garbage from an inference on."""

    def __init__(self, session, start):
        self._session, self._start, self.count = session, start, 0
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds):
        self.count += 1
        answer = self._session.run(feeds)
        return {name: values + (self.count >= self._start) for name, values in answer.items()}

    def close(self):
        self._session.close()


@pytest.fixture
def request_of(tmp_path):
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Sin", ["x"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1, 8])], [value("y", 1, [1, 8])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "out").mkdir()

    def make(soak=0):
        return ConvertRequest(
            source=tmp_path / "m.onnx",
            steps=("onnx_to_onnx",),
            format="onnx",
            options=ConvertOptions(precision="fp16", soak=soak),
            out=tmp_path / "out",
            scratch=tmp_path / "scratch",
        )

    return make


@pytest.mark.parametrize(("start", "words"), [(2, "inference 2 differs from inference 1"), (90, "inference 9")])
def test_an_engine_that_answers_garbage_later_fails_the_proof(request_of, monkeypatch, start, words):
    monkeypatch.setattr(pipeline, "new_session", lambda artifact: Garbage(new_session(artifact), start))
    with pytest.raises(ProofError, match=words) as caught:
        convert(request_of(soak=100), lambda progress: None)
    assert caught.value.exit_code == 6
    assert "update the engine" in caught.value.hint


def test_as_many_inferences_as_asked_for(request_of, monkeypatch, tmp_path):
    opened = []

    def open_counted(artifact):
        opened.append(Garbage(new_session(artifact), 10**9))
        return opened[-1]

    monkeypatch.setattr(pipeline, "new_session", open_counted)
    convert(request_of(soak=1000), lambda progress: None)
    assert 1000 < opened[0].count < 1100  # and the proof
    rule = Artifact.open(tmp_path / "out").manifest.selfcheck
    assert rule is not None
    assert not rule.stateful
