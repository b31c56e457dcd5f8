import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from runtimes import artifact
from runtimes.artifact.manifest import Manifest, OutputMeaning, Preprocess, TensorSpec
from tests.real_data import real_data

QUICK = ("--protocol", "published", "--runs", "70", "--rounds", "1")
WHITE = Preprocess("stretch", 4, (4, 4), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1 / 255,) * 3)
PICTURE_SPEC = TensorSpec("x", "float32", (1, 4, 4, 3))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A null model in the current folder; published pauses for a second, which no test needs."""
    monkeypatch.chdir(tmp_path)
    Path("a.null").write_bytes(b"x")
    return "a.null"


@pytest.fixture
def pictured(model):
    """An artifact of the null engine that says how a picture becomes its input."""
    folder = Path("pictured")
    folder.mkdir()
    (folder / "m.null").write_bytes(b"x")
    meaning = OutputMeaning("probability")
    manifest = Manifest(
        "p", "null", "fp32", "m.null", {}, (PICTURE_SPEC,), (PICTURE_SPEC,), preprocess=WHITE, output=meaning
    )
    sample = {"x": np.zeros((1, *PICTURE_SPEC.shape), np.float32)}
    artifact.write(folder, manifest, sample, sample)
    return str(folder)


def bench(capsys, *words):
    status = main(["bench", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_model_is_measured_and_reported_with_what_made_it(model, capsys):
    status, out, err = bench(capsys, model, *QUICK)
    assert status == 0
    assert out.splitlines()[0].startswith("Setup ")
    assert "a.null  null 1" in out
    assert "seeded random numbers" in out
    assert "measured on" in out
    assert err == "measuring 1/1 a.null: ok\n"


def test_json_has_the_keys_of_the_contract_and_nothing_else_is_printed(model, capsys):
    status, out, err = bench(capsys, model, "--threads", "1", "2", *QUICK, "--json")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert [row["setup"] for row in rows] == ["a.null, 1 thread, null", "a.null, 2 threads, null"]
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(len(row["samples_ms"]) == 70 for row in rows)
    assert all(row["p90_ms"] is not None and row["p95_ms"] is None for row in rows)
    assert rows[0]["protocol"] == {"name": "published", "runs": 70, "pause_s": 1.0}


def test_steady_is_the_default(model, capsys):
    _, out, _ = bench(capsys, model, "--seconds", "0.5", "--rounds", "1", "--json")
    protocol = json.loads(out)[0]["protocol"]
    assert (protocol["name"], protocol["max_s"]) == ("steady", 0.5)


def test_csv_and_markdown(model, capsys):
    _, out, _ = bench(capsys, model, *QUICK, "--csv")
    assert next(csv.DictReader(io.StringIO(out)))["setup"] == "a.null, null"
    _, out, _ = bench(capsys, model, *QUICK, "--markdown")
    assert out.startswith("| Setup | Engine |")


def test_out_takes_its_format_from_the_suffix_and_compare_reads_it(model, capsys):
    status, out, _ = bench(capsys, model, *QUICK, "--out", "old.json")
    assert status == 0
    assert out.startswith("Setup")
    assert json.loads(Path("old.json").read_text())[0]["status"] == "ok"
    Path("b.null").write_bytes(b"x")
    _, out, err = bench(capsys, model, "b.null", *QUICK, "--compare", "old.json")
    assert "a.null: " in out.split("\n\n")[-1]
    assert "too few rounds; measure both with --rounds 5 or more" in out
    assert "old.json has no measurement of 'b.null, null'; it has: 'a.null, null'" in err


def test_an_npz_is_used_as_input(model, capsys):
    np.savez("in.npz", x=np.ones((2, 1), np.float32))
    _, out, _ = bench(capsys, model, *QUICK, "--input", "in.npz", "--json")
    assert json.loads(out)[0]["input"]["kind"] == "arrays"


def test_a_picture_is_passed_as_the_manifest_says(pictured, capsys):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("RGB", (9, 7), "white").save("white.png")
    _, out, _ = bench(capsys, pictured, *QUICK, "--input", "white.png", "--json")
    row = json.loads(out)[0]
    assert row["input"]["kind"] == "picture"
    assert row["raw"] == pytest.approx(1.0)


@pytest.mark.data
def test_a_picture_is_passed_to_a_bare_model_as_the_options_say(tmp_path, monkeypatch, capsys):
    pillow = pytest.importorskip("PIL.Image")
    pytest.importorskip("ai_edge_litert")
    model = real_data("mobilenet_v2/mobilenet_v2_1.0_224_quant.tflite").resolve()
    monkeypatch.chdir(tmp_path)
    pillow.new("RGB", (300, 260), "white").save("white.png")
    words = ("--input", "white.png", "--preprocess", "tflite-uint8", "--json")
    status, out, _ = bench(capsys, str(model), *QUICK, *words)
    assert status == 0
    assert json.loads(out)[0]["input"]["kind"] == "picture"


def test_a_setup_that_fails_is_reported_with_its_status_and_the_rest_is_measured(model, capsys):
    Path("broken.tflite").write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 100)
    status, out, _ = bench(capsys, "broken.tflite", model, *QUICK)
    assert status in (3, 4)
    assert "broken.tflite: " in out
    assert "a.null  null 1" in out


def test_models_of_the_same_name_are_distinguished(model, capsys):
    Path("other").mkdir()
    Path("other/a.null").write_bytes(b"x")
    _, out, _ = bench(capsys, model, "other/a.null", *QUICK, "--json")
    assert [row["setup"] for row in json.loads(out)] == ["a.null, null", "other/a.null, null"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["absent.onnx"], 3, "absent.onnx does not exist"),
        (["a.null", "--runtime", "nul"], 2, "there is no engine 'nul'"),
        (["a.null", "--runtime", "openvino"], 2, "does not open the format 'null'"),
        (["a.null", "--threads", "0"], 2, "--threads: '0' is not a whole number over 0"),
        (["a.null", "--rounds", "0"], 2, "--rounds: '0' is not a whole number over 0"),
        (["a.null", "--seconds", "nan"], 2, "--seconds: 'nan' is not a number of seconds over 0"),
        (["a.null", "--seconds", "inf"], 2, "--seconds: 'inf'"),
        (["a.null", "--timeout", "-3"], 2, "--timeout: '-3'"),
        (["a.null", "--set", "spinning"], 2, "--set takes NAME=VALUE"),
        (["a.null", "--runs", "3"], 2, "--runs does not apply to the protocol steady"),
        (["a.null", "--protocol", "published", "--seconds", "3"], 2, "--seconds does not apply"),
        (["a.null", "--protocol", "published", "--runs", "0"], 2, "--runs: '0'"),
        (["a.null", "--input", "absent.jpg"], 3, "absent.jpg is not a file"),
        (["a.null", "--compare", "absent.json"], 3, "absent.json cannot be read as JSON"),
        (["a.null", "--out", "result"], 2, "the format of result is unknown"),
        (["a.null", "--out", "nowhere/result.json"], 3, "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(words, status, message, model, capsys):
    found, out, err = bench(capsys, *words)
    assert found == status
    assert message in err
    assert len(err.splitlines()) == 2
    assert out == ""


def test_an_unknown_setting_is_a_row_with_the_status_of_its_error(model, capsys):
    status, out, _ = bench(capsys, model, "--set", "speed=high", *QUICK)
    assert status == 2
    assert "unsupported: null has no setting 'speed'" in out


def test_ctrl_c_keeps_what_is_finished(model, tmp_path):
    # 600 rounds of more than a second: it cannot be over when the signal comes.
    words = [sys.executable, "-m", "edge", "bench", model, "--protocol", "published", "--rounds", "600"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "measuring 1/600 a.null: ok\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "a.null  null 1" in out
    assert "edge: stopped; " in err
    assert "Traceback" not in err
