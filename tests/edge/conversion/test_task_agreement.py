"""The proof at the level of the task: a wrong decoder and numbers that are too coarse are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.pipeline.request import EXPECTED, RESULT, SOURCE, ConvertRequest, ConvertResult, TaskAgreement
from converters.sources.artifact import open_source
from edge.cli import main
from edge.conversion import task_agreement as agreement
from edge.conversion.datasets import ConversionInputs
from runtimes.arrays import save_arrays
from runtimes.artifact import Manifest, Quantization, TaskStatement, TensorSpec, write
from runtimes.errors import ProofError

POINTS = np.stack([np.linspace(0.2, 0.8, 17), np.linspace(0.3, 0.9, 17), np.full(17, 0.8)], axis=1)
INPUTS = 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A pose model of MoveNet's shapes: its key points move with the picture's mean brightness."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["gray"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["gray", "little"], ["moved"]),
        helper.make_node("Add", ["moved", "points"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(POINTS.astype(np.float32)[None, None], "points"),
        onnx.numpy_helper.from_array(np.float32([0.1, 0.1, 0]), "little"),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, [1, 32, 32, 3])]
    outputs = [helper.make_tensor_value_info("y", kind, [1, 1, 17, 3])]
    graph = helper.make_graph(nodes, "pose", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "p.onnx")
    return tmp_path / "p.onnx"


def request_of(
    model: Path, folder: Path, *, off: float = 0.0, quantization: Quantization | None = None
) -> ConvertRequest:
    """A conversion that is done: an artifact, and answers that are `off` in the result."""
    out = folder / "artifact"
    out.mkdir()
    (out / "p.onnx").write_bytes(model.read_bytes())
    picture, output = TensorSpec("x", "float32", (1, 32, 32, 3)), TensorSpec("y", "float32", (1, 1, 17, 3))
    if quantization is not None:
        output = replace(output, dtype="uint8", quantization=quantization)
    manifest = Manifest("p", "onnx", "fp32", "p.onnx", inputs=(picture,), outputs=(output,), task=TaskStatement("pose"))
    pictures = np.zeros((INPUTS, 1, 32, 32, 3), np.float32)
    right = np.tile(POINTS.astype(np.float32), (INPUTS, 1, 1, 1, 1))
    write(out, manifest, {"x": pictures}, {"y": right})
    wrong = right.copy()
    wrong[0, ..., 0] += off  # of one input
    save_arrays(folder / "answers.npz", {f"{SOURCE}y": right, f"{EXPECTED}y": right, f"{RESULT}y": wrong})
    return ConvertRequest(
        source=model,
        steps=(),
        format="onnx",
        options=ConvertOptions(),
        out=out,
        scratch=folder,
        answers=folder / "answers.npz",
    )


def compared(model: Path, request: ConvertRequest) -> TaskAgreement | None:
    return agreement.compare_answers(open_source(model), None, ConversionInputs(), request)


def test_equal_numbers_agree_in_every_input(model, tmp_path):
    found = compared(model, request_of(model, tmp_path))
    assert found is not None
    assert (found.task, found.inputs, found.agreeing) == ("pose", INPUTS, INPUTS)
    assert found.metrics == {"keypoint_distance": 0.0}


def test_numbers_that_are_too_far_off_are_counted_and_not_blamed_on_the_decoder(model, tmp_path):
    found = compared(model, request_of(model, tmp_path, off=0.2))
    assert found is not None
    assert (found.inputs, found.agreeing) == (INPUTS, INPUTS - 1)
    assert str(found).startswith("pose: 3 of 4 inputs agree with the source (keypoint_distance ")
    assert "key points differ by up to" in str(found)


def test_rounding_in_the_result_is_not_blamed_on_the_decoder(model, tmp_path):
    """In steps of 0.25 every key point lies up to 0.125 elsewhere, for both decoders."""
    found = compared(model, request_of(model, tmp_path, quantization=Quantization((0.25,), (0,))))
    assert found is not None
    assert found.agreeing == INPUTS


def test_a_result_that_is_decoded_otherwise_is_a_fault_though_its_numbers_are_equal(model, tmp_path, monkeypatch):
    """The planted fault: the artifact's decoder takes y for x."""
    whole = agreement.complete_model

    def wrong(*arguments, **options):
        prepared = whole(*arguments, **options)
        return replace(prepared, decoder=replace(prepared.decoder, size=(16, 64)))

    request = request_of(model, tmp_path)
    monkeypatch.setattr(agreement, "complete_model", wrong)
    with pytest.raises(ProofError) as caught:
        compared(model, request)
    assert "the same numbers are decoded to another pose result" in caught.value.message


def test_a_result_of_another_task_is_a_fault(model, tmp_path):
    request = request_of(model, tmp_path)
    manifest = json.loads((request.out / "manifest.json").read_text())
    manifest["task"]["id"] = "tensors"
    (request.out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ProofError) as caught:
        compared(model, request)
    assert "decoded as pose, and the artifact's as tensors" in caught.value.message


def test_a_failed_proof_says_what_it_means_for_the_task():
    def fails() -> ConvertResult:
        raise ProofError("snr_db 3 is below 12", "calibrate", {"inputs": "given"})

    found = TaskAgreement(task="pose", inputs=4, agreeing=1, metrics={"keypoint_distance": 0.5}, message="apart")
    with pytest.raises(ProofError) as caught:
        agreement.with_agreement(fails, lambda: found)
    assert caught.value.message.startswith("snr_db 3 is below 12; pose: 1 of 4 inputs agree with the source")
    assert caught.value.hint == "calibrate"
    assert caught.value.details["task"]["agreeing"] == 1
    with pytest.raises(ProofError) as caught:
        agreement.with_agreement(fails, lambda: None)
    assert caught.value.message == "snr_db 3 is below 12"


def test_convert_prints_it_beside_the_tensors_verdict(capsys, model, tmp_path):
    options = ["--mean", "0", "--scale", "1", "--to", "onnx", "--out"]
    assert main(["convert", str(model), *options, str(tmp_path / "out")]) == 0
    assert "  pose: 8 of 8 inputs agree with the source (keypoint_distance 0)" in capsys.readouterr().out
    assert main(["convert", str(model), *options, str(tmp_path / "other"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["task"]
    assert (found["task"], found["inputs"], found["agreeing"]) == ("pose", 8, 8)
