"""`edge tune` with real engines."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

import edge
from edge.benchmark import history
from edge.cli import _parser, main
from runtimes.errors import EngineError

ARTIFACTS = Path(__file__).parents[2] / "compatibility" / "artifacts"
QUICK = ("--seconds", "0.2", "--threads", "1")


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HISTORY", str(tmp_path / "history.sqlite"))


def test_it_names_a_winner_with_its_interval_and_a_command_that_measures_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [str(ARTIFACTS / name) for name in ("onnx-fp32", "onnx-int8")]
    assert main(["tune", *models, "--runtime", "onnxruntime", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    winner = found["winner"]
    assert winner["low_ms"] <= winner["median_ms"] <= winner["high_ms"]
    assert {one["status"] for one in found["trials"]} <= {"winner", "tied", "slower", "wrong"}
    assert found["trials"][0]["status"] == "winner"
    assert {one["artifact"] for one in found["trials"]} == set(models)
    parsed = _parser("bench").parse_args(shlex.split(found["command"])[1:])
    assert parsed.runtime == "onnxruntime"
    assert parsed.threads == [winner["threads"]]
    assert [one.setup for one in history.entries()] == [winner["setup"]]


def test_the_text_lists_what_was_tried_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(ARTIFACTS / "onnx-fp32"), *QUICK, "--no-history"]) == 0
    out = capsys.readouterr().out
    assert "fastest: onnx-fp32, " in out
    assert "measure it again: edge bench " in out
    assert "ways were tried in" in out
    assert history.entries() == []


@pytest.mark.parametrize(
    ("engine", "status", "message"),
    [("nope", 2, "nope"), ("litert", 3, "litert cannot open the format onnx")],
)
def test_an_engine_that_does_not_fit_is_named(
    engine: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(ARTIFACTS / "onnx-fp32"), "--runtime", engine]) == status
    assert message in capsys.readouterr().err.splitlines()[0]


def test_an_artifact_whose_outputs_are_wrong_is_not_the_winner(tmp_path: Path) -> None:
    """The self-check of a copy expects other outputs: the fault that a wrong setting has."""
    import hashlib

    from runtimes.arrays import load_arrays, save_arrays

    wrong = Path(shutil.copytree(ARTIFACTS / "onnx-fp32", tmp_path / "wrong"))
    arrays = {
        name: -array - 1 if name.startswith("output") else array
        for name, array in load_arrays(wrong / "selfcheck.npz").items()
    }
    save_arrays(wrong / "selfcheck.npz", arrays)
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["files"]["selfcheck.npz"] = hashlib.sha256((wrong / "selfcheck.npz").read_bytes()).hexdigest()
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    options = edge.TuneOptions(runtimes=("onnxruntime",), threads=(1,), seconds=0.2)
    with pytest.raises(EngineError, match="nothing that was tried gives right outputs"):
        edge.tune(wrong, options)
    found = edge.tune([wrong, ARTIFACTS / "onnx-fp32"], options)
    assert found.winner.artifact == str(ARTIFACTS / "onnx-fp32")
    assert {one.status for one in found.trials if one.setup.artifact == wrong} <= {"wrong", "slower"}


def test_other_formats_are_converted_and_proven_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    out = tmp_path / "forms"
    words = ["tune", str(ARTIFACTS / "onnx-fp32"), "--convert", "--out", str(out), *QUICK, "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert any(one["artifact"] == str(out / "onnx-fp32-openvino-fp32") for one in found["trials"])
    assert main(["tune", "x.onnx", "--calibration", "pictures"]) == 2
    assert "add --convert" in capsys.readouterr().err
