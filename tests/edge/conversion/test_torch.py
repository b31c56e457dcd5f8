"""`edge convert` on PyTorch models that have to be exported first."""

from __future__ import annotations

import json

import pytest

import edge
from converters.sources.module import ModuleOptions
from edge.cli import main
from runtimes.artifact import Artifact
from runtimes.errors import UsageError

CODE = """
from torch import nn


def network():
    layers = [nn.Conv2d(3, 4, 3, 2), nn.ReLU6(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * 49, 5), nn.Softmax(-1))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for library in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    (tmp_path / "mynets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_users_own_code_becomes_an_artifact_and_is_said_aloud(folder, capsys):
    words = ["convert", "mynets:network", "--input", "1x3x16x16", "--to", "onnx", "--opset", "13", "--json"]
    assert main(words) == 0
    said, told = capsys.readouterr()
    answer = json.loads(said)
    assert answer["artifact"] == "network-onnx-fp32"
    assert answer["proof"]["passed"] is True
    assert "mynets:network is exported to a PyTorch program (.pt2) first, which runs its Python code" in told
    manifest = Artifact.open(folder / "network-onnx-fp32").manifest
    assert manifest.source == {"name": "mynets:network", "format": "module", "sha256": "unknown"}
    assert manifest.conversion["steps"] == ["pt2_to_onnx"]
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "mynets.py",
        "network-onnx-fp32",
    ]


def test_a_dry_run_runs_no_code(folder, capsys):
    (folder / "mynets.py").write_text("raise SystemExit('it ran')")
    assert main(["convert", "mynets:network", "--input", "1x3x16x16", "--to", "openvino", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1. pt2_to_onnx (fp32)" in said
    assert "2. onnx_to_openvino (fp32)" in said
    assert "runs its Python code" in said


def test_a_refusal_comes_before_any_code_runs(folder, capsys):
    (folder / "mynets.py").write_text("raise SystemExit('it ran')")
    words = ["convert", "mynets:network", "--input", "1x3x16x16", "--to", "onnx", "--precision", "int8", "--json"]
    assert main(words) == 2
    assert "needs calibration data" in capsys.readouterr().err


def test_code_that_fails_is_one_line(folder, capsys):
    (folder / "mynets.py").write_text("raise RuntimeError('no weights')")
    assert main(["convert", "mynets:network", "--input", "1x3x16x16", "--to", "onnx", "--json"]) == 3
    told = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert told["message"] == "mynets:network cannot be imported: no weights"
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["mynets.py"]


@pytest.mark.parametrize(
    ("model", "words", "flags", "takers"),
    [
        ("mynets:network", ["--input", "1x3", "--weights", "w.pt"], None, ""),
        ("plain.onnx", ["--weights", "w.pt"], "--weights", "module"),
        ("folder", ["--weights", "w.pt"], "--weights", "module"),
    ],
)
def test_an_option_of_another_source_is_refused_with_those_that_take_it(folder, capsys, model, words, flags, takers):
    (folder / "plain.onnx").write_bytes(b"x")
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text("{}")
    status = main(["convert", model, *words, "--to", "onnx", "--dry-run"])
    told = capsys.readouterr().err
    if flags is None:  # the file that it names is not there
        assert (status, "w.pt does not exist" in told) == (3, True)
    else:
        assert (status, f"{flags} does not apply to {model}" in told, f"it is for: {takers}" in told) == (2, True, True)


def test_the_api_refuses_an_option_of_another_source_like_the_command(folder):
    (folder / "plain.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"--weights does not apply to plain\.onnx") as caught:
        edge.convert("plain.onnx", format="onnx", source_options=ModuleOptions(weights="w.pt"))
    assert "it is for: " in caught.value.hint
    assert [path.name for path in folder.iterdir() if path.suffix != ".py"] == ["plain.onnx"]
