"""`edge table` as users run it: the command in its own process, on the real data if available."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from device_profiles.published import published_rows
from edge.table.prepare import ChosenFiles, prepare
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]


def _edge(*arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "table", *arguments]
    env = {**os.environ, "EDGE_CACHE": str(cache), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row.id)
def test_how_prints_commands_for_every_published_row(row: Any, tmp_path: Path) -> None:
    done = _edge("--how", row.setup, cache=tmp_path)
    assert done.returncode == 0
    commands = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
    assert commands
    assert "Not tried on this hardware" in done.stdout


def test_the_setups_of_this_machine_are_listed_as_json(tmp_path: Path) -> None:
    done = _edge("--list", "--json", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(one.keys() == {"id", "setup", "needs"} for one in found)
    listed = _edge("--list", cache=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [one["id"] for one in found]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--how", "no such board"], 2, "no published setup"),
        (["--setup", "no-such-setup"], 2, "no setup 'no-such-setup'"),
        (["--runs", "0"], 2, "--runs: '0' is not a whole number over 0"),
        (["--timeout", "-3"], 2, "--timeout: '-3' is not a number of seconds over 0"),
        (["--from", "no-such-folder"], 3, "is not a prepared table"),
        (["--from", "x", "--weights", "y"], 2, "--from has its own"),
        (["--weights", "no-such-file.safetensors"], 3, "does not exist"),
        (["--on", "a.invalid", "--on", "b.invalid"], 7, "edge: the host b.invalid is not found"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = _edge(*arguments, cache=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


# Every engine with every model, on one thread: all threads answer alike, and each setup costs a process.
SETUPS = (
    "keras-predict", "keras-compiled", "torch-fp32", "onnxruntime-fp32", "tflite-fp32", "tflite-int8",
    "tflite-int8-logits", "tflite-2019", "tflite-2019-logits", "openvino-fp32", "openvino-fp16", "openvino-int8",
    "browser-tflite-int8",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(cache: Path) -> dict[str, dict[str, Any]]:
    real_data("mobilenet_v2")
    real_data("imagenet")
    wanted = [word for setup in SETUPS for word in ("--setup", f"{setup}-1t")]
    done = _edge("--json", "--runs", "5", "--rounds", "1", *wanted, cache=cache)
    assert done.returncode == 0, done.stderr
    return {row["id"]: row for row in json.loads(done.stdout)}


def _measured(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in rows.items() if row["kind"] == "measured"}


@pytest.mark.data
def test_every_setup_of_this_machine_was_measured(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["kind"] for row in rows.values()} == {"published", "measured", "absent"}
    assert {name.rsplit("-", 1)[0] for name in _measured(rows)} == {*SETUPS}


@pytest.mark.data
def test_what_a_jetson_builds_its_engine_from_is_made_for_the_oldest(
    rows: dict[str, dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows  # what it is made from is in the cache
    monkeypatch.setenv("EDGE_CACHE", str(cache))
    bundle = prepare(ChosenFiles(), ["tensorrt-fp16"], quiet=True)
    assert bundle.missing == {}
    assert bundle.artifact("tensorrt-fp16").manifest.conversion["tensorrt"]["release"] == "8.2.1"
    assert "--fp16" in (bundle.folder("tensorrt-fp16") / "build.sh").read_text()


@pytest.mark.data
def test_every_measured_row_says_magpie(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["top1"] for row in _measured(rows).values()} == {"magpie"}


@pytest.mark.data
def test_the_three_kinds_of_score_are_reproduced(rows: dict[str, dict[str, Any]]) -> None:
    measured = _measured(rows)
    # The data's own note puts the float softmax of this picture at 0.9691 with these weights.
    assert measured["onnxruntime-fp32-1t"]["raw"] == pytest.approx(0.9691, abs=5e-5)
    assert f"{measured['tflite-2019-1t']['raw']:.4f}" == "0.9961"
    logit = measured["tflite-2019-logits-1t"]
    steps = logit["raw"] / 0.09889253973960876
    assert steps == pytest.approx(round(steps), abs=1e-3)
    assert 15 < logit["raw"] < 20
    assert 0.99 < logit["score"] <= 1.0


@pytest.mark.data
def test_the_browser_gives_the_native_engines_answers(rows: dict[str, dict[str, Any]]) -> None:
    there, native = rows["browser-tflite-int8-1t"], rows["tflite-int8-1t"]
    assert there["runtime"] == "litert_js"
    assert there["agreement"] == native["agreement"]
    assert [guess["probability"] for guess in there["top"]] == [guess["probability"] for guess in native["top"]]


@pytest.mark.data
def test_answers_agree_as_each_precision_owes(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in _measured(rows).items():
        agreement = row["agreement"]
        assert agreement["pictures"] == 100
        if agreement["own_weights"]:
            assert agreement["correct"] >= agreement["reference_correct"], name
        elif "tflite-int8" in name:
            assert agreement["same_top1"] >= 97, name
        elif row["precision"] == "int8" and "fast" not in name:
            # Which pictures tip over differs between processors; how many answers are lost may not.
            assert agreement["correct"] >= agreement["reference_correct"] - 2, name
        elif row["precision"] == "fp32":
            assert agreement["same_top1"] == 100, name
            assert agreement["max_difference"] <= 1e-4, name
        elif row["precision"] == "fp16":
            assert agreement["same_top1"] == 100, name


@pytest.mark.data
def test_rows_keep_every_sample(rows: dict[str, dict[str, Any]]) -> None:
    for row in _measured(rows).values():
        assert len(row["samples_ms"]) == 5
        assert [part["runs"] for part in row["rounds"]] == [5]


@pytest.mark.data
def test_an_exported_table_is_measured_without_converting(
    rows: dict[str, dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    place = tmp_path / "export"
    assert _edge("--export", str(place), cache=cache).returncode == 0
    now, meter = time.time(), tmp_path / "meter.csv"
    meter.write_text(f"time,watts\n{now - 1},3\n{now + 3600},3\n")
    wanted = ["--from", str(place), "--setup", "tflite-int8", "--runs", "3", "--rounds", "2", "--json"]
    done = _edge(*wanted, "--energy-csv", str(meter), cache=tmp_path / "unused", EDGE_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    measured = {row["id"]: row for row in json.loads(done.stdout) if row["kind"] == "measured"}
    assert {name.rsplit("-", 1)[0] for name in measured} == {"tflite-int8"}  # with one thread, and with all
    for one in measured.values():
        assert len(one["samples_ms"]) == 6  # of both rounds
        assert [part["runs"] for part in one["rounds"]] == [3, 3]
        assert one["agreement"] == rows["tflite-int8-1t"]["agreement"]  # float Keras' answers came along
    row = measured["tflite-int8-1t"]
    assert row["top1"] == "magpie"
    assert row["raw"] == rows["tflite-int8-1t"]["raw"]
    assert row["energy_per_run_j"] == pytest.approx(3 * row["time_s"] / 3, rel=1e-3)
    assert not (tmp_path / "unused").exists()
    again = _edge("--export", str(place), cache=cache)
    assert again.returncode == 2


def test_without_weights_and_pictures_times_are_measured_and_answers_are_not(tmp_path: Path) -> None:
    done = _edge(
        "--setup", "onnxruntime-fp32-1t", "--setup", "tflite-2019", "--runs", "2", "--rounds", "1",
        cache=tmp_path / "cache", EDGE_DATA=str(tmp_path / "nothing"), KERAS_HOME=str(tmp_path / "keras"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "ONNX Runtime float32, 1 thread" in line and "|" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")][4:] == ["not evaluated", "not evaluated", "–"]
    assert "The weights are random" in done.stdout
    assert "Not built here: tflite-2019" in done.stdout
