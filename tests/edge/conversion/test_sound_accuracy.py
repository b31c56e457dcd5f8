"""`edge convert --evaluate` with models of sounds, with and without a state that they take as an input."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main

RATE, STEP, CONTEXT = 16_000, 512, 64  # of Silero's voice activity detector
LOUD_WINDOWS = 6


@pytest.fixture
def sounds(tmp_path) -> Path:
    """Loud sounds are speech, silent ones are not."""
    for name, level in (("speech", 0.5), ("none", 0.0)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(3):
            with wave.open(str(tmp_path / "sounds" / name / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                file.writeframes(np.full(LOUD_WINDOWS * STEP, level * 32767, "<i2").tobytes())
    return tmp_path / "sounds"


def network(folder: Path, *, has_state: bool) -> Path:
    """Write a detector of loud sounds; one with a state hears only what has been loud for four windows."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    size, state = [1, STEP + CONTEXT], [2, 1, 128]
    nodes = [helper.make_node("ReduceMean", ["samples"], ["loud"], axes=[1], keepdims=1)]
    if has_state:
        nodes.append(helper.make_node("Add", ["state", "loud"], ["next"]))
        nodes.append(helper.make_node("ReduceMean", ["next"], ["level"], axes=[0, 2], keepdims=0))
        nodes.append(helper.make_node("Sub", ["level", "least"], ["over"]))
        nodes.append(helper.make_node("Mul", ["over", "steep"], ["logit"]))
        nodes.append(helper.make_node("Sigmoid", ["logit"], ["score"]))
    else:
        nodes.append(helper.make_node("MatMul", ["loud", "weights"], ["raw"]))
        nodes.append(helper.make_node("Add", ["raw", "bias"], ["logits"]))
        nodes.append(helper.make_node("Softmax", ["logits"], ["score"], axis=1))
    inputs = [helper.make_tensor_value_info("samples", kind, size)]
    outputs = [helper.make_tensor_value_info("score", kind, [1] if has_state else [1, 2])]
    if has_state:
        inputs.append(helper.make_tensor_value_info("state", kind, state))
        outputs.append(helper.make_tensor_value_info("next", kind, state))
    constants = {"least": np.float32(1.75), "steep": np.float32(9)}
    constants |= {"weights": np.float32([[9, -9]]), "bias": np.float32([-2, 2])}
    used = {name for node in nodes for name in node.input}
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "loud", inputs, outputs, initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / "loud.onnx")
    return folder / "loud.onnx"


@pytest.mark.parametrize("has_state", [True, False])
def test_sounds_are_judged_while_they_are_converted(capsys, tmp_path, sounds, has_state):
    model = network(tmp_path, has_state=has_state)
    (tmp_path / "names.txt").write_text("speech\n" if has_state else "speech\nnone\n")
    words = ["--task", "sound", "--labels", str(tmp_path / "names.txt")]
    place = ["--to", "onnx", "--evaluate", str(sounds), "--out", str(tmp_path / "out"), "--json"]
    assert main(["convert", str(model), *place, *words]) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    assert (found["metric"], found["samples"], found["source"], found["artifact"]) == ("top1", 6, 1.0, 1.0)
    assert main(["evaluate", str(model), str(tmp_path / "out"), "--data", str(sounds), *words, "--json"]) == 0
    assert [one["metrics"]["top1"] for one in json.loads(capsys.readouterr().out)["models"]] == [1.0, 1.0]
