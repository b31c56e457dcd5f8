"""`edge verify`: digests and self-check, and the exit status of each failure."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from edge.cli import main
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest, SelfCheck

SAMPLES = {"x": np.array([[1.0], [2.0], [4.0]], np.float32)}


@pytest.fixture
def artifact(tmp_path):
    """Write an artifact of the null engine, which answers its input; `outputs` is what its source is said to answer."""

    def make(outputs):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "model.null").write_bytes(b"0")
        manifest = Manifest("m", "null", "fp32", "model.null", selfcheck=SelfCheck("max_abs", 1e-4, "synthetic"))
        artifacts.write(folder, manifest, SAMPLES, {"x": outputs})
        return folder

    return make


def test_a_right_artifact(artifact, capsys):
    folder = artifact(SAMPLES["x"])
    assert main(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}: verified with null 1 (max_abs 0, at most 0.0001; ")
    assert re.search(r"; [\d,]+ inferences alike, memory grew by \d+\.\d\d MB\)\n$", out)


def test_for_machines(artifact, capsys):
    assert main(["verify", str(artifact(SAMPLES["x"])), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["passed"] is True
    assert verdict["metrics"]["max_abs"] == 0
    assert (verdict["runtime"], verdict["runtime_version"]) == ("null", "1")


def test_other_answers_than_the_sources_are_exit_6(artifact, capsys):
    folder = artifact(SAMPLES["x"] + np.array([[0], [0], [1]], np.float32))
    assert main(["verify", str(folder), "--json"]) == 6
    said = capsys.readouterr()
    assert json.loads(said.out)["passed"] is False
    error = json.loads(said.err)
    assert error["error"] == "proof"
    assert "max_abs 1, at most 0.0001" in error["message"]


@pytest.mark.parametrize("name", ["model.null", "selfcheck.npz"])
def test_a_changed_file_is_exit_3(artifact, capsys, name):
    folder = artifact(SAMPLES["x"])
    (folder / name).write_bytes(b"changed")
    assert main(["verify", str(folder)]) == 3
    assert f"{name} has changed" in capsys.readouterr().err


def test_a_missing_file_is_exit_3(artifact, capsys):
    folder = artifact(SAMPLES["x"])
    (folder / "model.null").unlink()
    assert main(["verify", str(folder)]) == 3
    assert "is missing" in capsys.readouterr().err


def test_a_bare_model_has_nothing_to_verify_it_by(tmp_path, capsys):
    (tmp_path / "model.null").write_bytes(b"0")
    assert main(["verify", str(tmp_path / "model.null")]) == 3
    assert "bare model file" in capsys.readouterr().err


@pytest.mark.parametrize(("runtime", "words"), [("onnxrutime", "onnxruntime"), ("onnxruntime", "null")])
def test_an_engine_that_is_not_there_or_does_not_open_it(artifact, capsys, runtime, words):
    assert main(["verify", str(artifact(SAMPLES["x"])), "--runtime", runtime]) == 2
    assert words in capsys.readouterr().err
