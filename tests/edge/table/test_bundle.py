"""Prepared tables on disk: complete at every moment, and one-line errors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.pipeline.staging import ARTIFACT, staging
from edge.table import bundle as bundles
from edge.table.bundle import Bundle
from edge.table.images import Pictures
from edge.table.prepare import ChosenFiles, prepare
from runtimes.errors import HostError, InputError, UsageError

PICTURES = Pictures(benchmark=np.zeros((1, 2, 2, 3), np.uint8), calibration=np.ones((2, 2, 2, 3), np.uint8))


def _bundle(folder: Path, pictures: Pictures = PICTURES) -> Bundle:
    return Bundle(
        path=folder,
        weights="random, seeded",
        trained=False,
        picture="generated",
        pictures=pictures,
        missing={"pt2-fp32": "no PyTorch"},
    )


def test_what_is_exported_is_read_again(tmp_path):
    answers = np.full((2, 1001), 0.5, np.float32)
    given = replace(PICTURES, evaluation=PICTURES.calibration, truth=np.array([3, 4]), reference=answers)
    place = bundles.export(_bundle(tmp_path / "cache", given), tmp_path / "export")
    found = bundles.read(place)
    assert (found.weights, found.trained, found.picture) == ("random, seeded", False, "generated")
    assert found.missing == {"pt2-fp32": "no PyTorch"}
    for name, values in vars(given).items():
        np.testing.assert_array_equal(getattr(found.pictures, name), values)


def test_what_there_is_not_is_not_there_after_reading(tmp_path):
    found = bundles.read(bundles.export(_bundle(tmp_path / "cache"), tmp_path / "export"))
    assert (found.pictures.evaluation, found.pictures.truth, found.pictures.reference) == (None, None, None)


@pytest.mark.parametrize("arrays", [{}, {"benchmark": np.zeros(1)}, {**vars(PICTURES), "other": np.zeros(1)}])
def test_pixels_that_are_not_ours_are_refused(arrays, tmp_path):
    place = bundles.export(_bundle(tmp_path / "cache"), tmp_path / "export")
    np.savez(place / "pixels.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=r"pixels\.npz"):
        bundles.read(place)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": 99}', '{"schema": 1, "trained": "yes"}'])
def test_a_broken_document_is_one_line(text, tmp_path):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(InputError) as caught:
        bundles.read(tmp_path)
    assert "\n" not in caught.value.message


def test_an_export_leaves_out_what_is_unfinished_or_wrong(tmp_path):
    bundle = _bundle(tmp_path / "cache")
    (bundle.path / ".onnx-fp32.x.partial").mkdir(parents=True)
    (bundle.path / "onnx-fp32.failed").mkdir()
    place = bundles.export(bundle, tmp_path / "export")
    assert sorted(path.name for path in place.iterdir()) == ["bundle.json", "pixels.npz"]


def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    bundle = _bundle(tmp_path / "cache")
    (bundle.folder("onnx-fp32")).mkdir(parents=True)
    (bundle.folder("onnx-fp32") / "manifest.json").write_text("{}")

    def break_off(_source, place, **_):
        place.mkdir(parents=True)
        raise shutil.Error([("a", "b", "No space left on device")])

    monkeypatch.setattr(shutil, "copytree", break_off)
    with pytest.raises(HostError, match="No space left"):
        bundles.export(bundle, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("EDGE_DATA", str(tmp_path))
    with pytest.raises(HostError) as caught:
        prepare(ChosenFiles(), ["onnx-fp32"])
    assert "EDGE_CACHE" in caught.value.hint


def _make(out: Path, meanwhile: str) -> None:
    with staging(out) as work:
        (work / ARTIFACT / "model").write_text("ours")
        out.mkdir()
        (out / "model").write_text(meanwhile)


def test_the_second_of_two_processes_keeps_what_the_first_one_made(tmp_path):
    with pytest.raises(UsageError, match="exists"):
        _make(tmp_path / "out", meanwhile="theirs")
    assert (tmp_path / "out" / "model").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
