"""Real public files: cells marked right are right, by a judge that detects planted faults."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.breadth import real_files, real_judge
from tests.breadth.real_inputs import MODELS
from tests.breadth.real_judge import Engine, Port, same_detections, same_key_points, verdict
from tests.real_data import real_data

GENERATOR = np.random.default_rng(8)
CELLS = real_files.read(Path(real_files.__file__).with_name("real_files.jsonl"))
RIGHT = sorted(key for key, one in CELLS.items() if one["state"] == real_files.RIGHT)
QUICK = [("magika.onnx", "openvino fp32"), ("silero_vad_16k_op15.onnx", "onnx fp32")]
BY_NAME = {model.name: model for model in MODELS}


@pytest.fixture
def folder():
    return real_data("real")


def test_no_cell_of_the_table_is_wrong_or_failed():
    assert RIGHT
    assert [key for key, one in CELLS.items() if one["state"] in (real_files.WRONG, real_files.FAILED)] == []


@pytest.mark.data
@pytest.mark.parametrize(("name", "target"), QUICK)
def test_a_quick_cell_is_right_again(folder, name, target):
    assert (name, target) in RIGHT
    assert real_files.cell(BY_NAME[name], target)["state"] == real_files.RIGHT


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "target"), RIGHT)
def test_every_right_cell_is_right_again(folder, name, target):
    found = real_files.cell(BY_NAME[name], target)
    assert found["state"] == real_files.RIGHT, found["reason"]


def answers(channels=6):
    return GENERATOR.normal(size=(8, 1, 10, channels))


@pytest.mark.parametrize(
    ("precision", "noise", "passes"),
    [("fp32", 1e-5, True), ("fp32", 0.05, False), ("fp16", 0.02, True), ("int8", 0.1, True), ("int8", 1.0, False)],
)
def test_the_judge_tells_noise_from_a_wrong_answer(precision, noise, passes):
    expected = answers()
    assert verdict("y", expected, expected + noise * answers(), precision)[0] == passes


def test_the_judge_finds_a_dead_column_and_values_that_are_not_finite():
    expected = answers()
    dead = expected.copy()
    dead[..., 3] = dead[..., 3].mean()
    agrees, words = verdict("y", expected, dead, "int8")
    assert not agrees
    assert words.endswith("1 of 6 columns are dead")
    dead[0, 0, 0, 0] = np.nan
    assert not verdict("y", expected, dead, "int8")[0]


def test_detections_are_compared_as_sets():
    boxes, classes, scores = (
        GENERATOR.uniform(0, 1, (2, 1, 5, 4)),
        np.arange(10).reshape(2, 1, 5),
        np.full((2, 1, 5), 0.9),
    )
    shuffled = [values[:, :, ::-1] for values in (boxes, classes, scores)]
    assert same_detections([boxes, classes, scores], shuffled)[0]
    assert not same_detections([boxes, classes, scores], [boxes + 0.2, classes, scores])[0]


def test_key_points_are_compared_where_the_source_is_sure():
    points = np.concatenate([GENERATOR.uniform(0, 1, (4, 17, 2)), np.full((4, 17, 1), 0.9)], axis=-1)
    moved = points + np.array([0.02, 0.02, -0.5])
    assert same_key_points(points, moved)[0]
    moved[:, 5] = points[:, 16]  # exchanged
    assert not same_key_points(points, moved)[0]
    points[:, 5, 2] = 0.1
    assert same_key_points(points, moved)[0]


def test_cells_that_are_there_are_not_made_again(tmp_path):
    cells, models = tmp_path / "cells.jsonl", [BY_NAME["magika.onnx"], BY_NAME["nmp.onnx"]]
    cells.write_text(json.dumps({"model": "magika.onnx", "target": "ncs2", "state": "refused"}) + "\n")
    assert list(real_files.missing(cells, models, ["ncs2"], again=False)) == [(models[1], "ncs2")]
    assert list(real_files.missing(cells, models, ["ncs2"], again=True)) == [(one, "ncs2") for one in models]


def test_the_table_says_what_each_cell_is(tmp_path):
    cell = {"model": "magika.onnx", "target": "ncs2", "state": "refused", "precision": "", "reason": "too | <large>"}
    text = real_files.table({("magika.onnx", "ncs2"): cell})
    assert "| magika.onnx |" in text
    assert "- ncs2: refused. too / ‹large›" in text
    assert "1 conversions: 0 right, 1 refused, 0 not proven, 0 WRONG, 0 failed." in text
    assert dataclasses.replace(BY_NAME["magika.onnx"], path="a/b.onnx").name == "b.onnx"


@pytest.mark.parametrize(("zero", "is_right"), [(0, True), (3, False)])
def test_the_judge_gives_a_result_of_another_type_the_same_real_values(zero, is_right, monkeypatch, tmp_path):
    def identity(dtype, zero):
        engine = Engine()
        engine.inputs = engine.outputs = [Port("x", (4,), np.dtype(dtype), 0.1, zero)]
        engine.run = lambda values: values
        return engine

    result = identity("uint8", 0)
    result.outputs = [Port("x", (4,), np.dtype("uint8"), 0.1, 60 * zero)]
    monkeypatch.setattr(real_judge, "open_engine", lambda _path: identity("int8", -128))
    monkeypatch.setattr(real_judge, "open_artifact", lambda _path: result)
    samples = {"x": np.arange(-128, 128, dtype=np.int8).reshape(-1, 4)}
    assert real_judge.judge(tmp_path, tmp_path, samples, "int8")[0] is is_right
