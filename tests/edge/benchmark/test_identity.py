"""Each row has the digest of the model that was measured; one that has changed is not measured, or is reported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import edge
from converters.sources.artifact import open_source
from edge.benchmark import Setup, measure_all, rows_of
from edge.benchmark.harness import model_sha256
from edge.benchmark.rows import Row
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest
from runtimes.artifact.json_fields import Fields
from runtimes.errors import InputError

FEW = {"name": "published", "runs": 3, "pause_s": 0}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "a.null"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "a.null").write_bytes(b"x")
    sample = {"x": np.zeros((1, 1), np.float32)}
    artifacts.write(folder, Manifest("a", "null", "fp32", "a.null"), sample, sample)
    return folder


def measure(path: Path, rounds: int = 1) -> Row:
    (row,) = rows_of(measure_all([Setup(id="a", title="a", artifact=path, protocol=FEW)], rounds=rounds))
    return row


def test_a_file_is_named_by_its_sha256_bare_or_in_an_artifact(bare: Path, artifact: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    for path in (bare, artifact):
        row = measure(path)
        assert (row.status, row.model_sha256, row.edge_version) == ("ok", digest, edge.__version__)
    assert Row.from_json(Fields(json.loads(json.dumps(row.to_json())), "x", "[0]")).model_sha256 == digest


def test_other_bytes_have_another_digest(bare: Path) -> None:
    first = model_sha256(bare)
    bare.write_bytes(b"yy")
    assert model_sha256(bare) != first


def test_a_model_of_several_files_has_one_digest(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<net/>")
    (tmp_path / "m.bin").write_bytes(b"1")
    first = model_sha256(tmp_path / "m.xml")
    (tmp_path / "m.bin").write_bytes(b"22")
    assert model_sha256(tmp_path / "m.xml") != first


def test_the_source_of_a_conversion_has_the_digest_of_a_measured_model(tmp_path: Path, artifact: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"0")
    (tmp_path / "m.xml").write_text("<net/>")
    (tmp_path / "m.bin").write_bytes(b"1")
    for model in (artifact, saved, tmp_path / "m.xml"):
        assert open_source(model).sha256 == model_sha256(model), model
    first = model_sha256(saved)
    assert model_sha256(saved.rename(tmp_path / "other")) == first, "the folder's own name is not part of the model"


def test_an_artifact_whose_model_has_changed_is_not_measured(artifact: Path) -> None:
    (artifact / "a.null").write_bytes(b"y")
    row = measure(artifact)
    assert (row.status, row.exit_code, row.samples_ms) == ("unreadable", 3, ())
    assert "has changed since the artifact was written" in row.message


def test_an_artifact_without_its_model_says_which_file_is_missing(artifact: Path) -> None:
    (artifact / "a.null").unlink()
    with pytest.raises(InputError, match=r"a\.null is missing"):
        model_sha256(artifact)


def test_a_model_that_changes_between_two_rounds_is_reported(bare: Path) -> None:
    found = []
    for one in measure_all([Setup(id="a", title="a", artifact=bare, protocol=FEW)], rounds=2):
        found.append(one)
        bare.write_bytes(b"another")
    (row,) = rows_of(found)
    assert row.status == "unreadable"
    assert "changed between two rounds" in row.message


@pytest.mark.parametrize(("name", "precision"), [("quantized.tflite", "int8"), ("litert.tflite", "fp32")])
def test_the_precision_of_a_bare_file_is_read_from_the_file(name: str, precision: str) -> None:
    pytest.importorskip("ai_edge_litert")
    model = Path(__file__).parents[2] / "runtimes" / "models" / name
    assert measure(model).precision == edge.inspect(model).precision == precision


def test_the_weights_of_an_onnx_model_count_if_they_are_in_another_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node, weights = onnx.helper.make_node("Add", ["x", "w"], ["y"]), onnx.numpy_helper.from_array(np.ones(4), "w")
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weights])
    model = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph), model, save_as_external_data=True, location="weights", size_threshold=0)
    first = model_sha256(model)
    (tmp_path / "weights").write_bytes(bytes(32))
    assert model_sha256(model) != first
    assert open_source(model).sha256 == model_sha256(model)
    moved = tmp_path / "elsewhere" / "m.onnx"
    moved.parent.mkdir()
    moved.write_bytes(model.read_bytes().replace(b"weights", b"../a.gz"))
    with pytest.raises(InputError, match="outside its folder"):
        model_sha256(moved)
