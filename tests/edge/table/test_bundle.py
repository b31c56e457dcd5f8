"""Prepared tables on disk: whole at every moment, and an error in one line where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.staging import ARTIFACT, staging
from edge.table import bundle as bundles
from edge.table.bundle import Bundle
from edge.table.pixels import Pictures
from edge.table.prepare import Wanted, prepare
from runtimes.errors import HostError, InputError, UsageError

PICTURES = Pictures(np.zeros((1, 2, 2, 3), np.uint8), np.ones((2, 2, 2, 3), np.uint8))


def _written(folder: Path) -> Bundle:
    bundle = Bundle(folder, "random, seeded", False, "generated", {"pt2-fp32": "no PyTorch"})
    bundles.write(bundle, PICTURES)
    return bundle


def test_what_is_written_is_read_again(tmp_path):
    written = _written(tmp_path)
    assert bundles.read(tmp_path) == written
    assert written.pictures().calibration.tolist() == PICTURES.calibration.tolist()
    assert written.pictures().truth is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "pixels.npz"]


def test_a_write_that_breaks_off_leaves_the_old_pixels_whole(tmp_path, monkeypatch):
    bundle = _written(tmp_path)

    def break_off(stream, **_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", break_off)
    with pytest.raises(OSError, match="No space"):
        bundles.write(bundle, PICTURES)
    assert bundle.pictures().benchmark.shape == (1, 2, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "pixels.npz"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": 99}', '{"schema": 1, "trained": "yes"}'])
def test_a_broken_document_is_one_line(text, tmp_path):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(InputError) as caught:
        bundles.read(tmp_path)
    assert "\n" not in caught.value.message


def test_an_export_leaves_out_what_is_unfinished_or_wrong(tmp_path):
    (tmp_path / "cache").mkdir()
    bundle = _written(tmp_path / "cache")
    (bundle.path / ".onnx-fp32.x.partial").mkdir()
    (bundle.path / "onnx-fp32.failed").mkdir()
    place = bundles.export(bundle, tmp_path / "export")
    assert sorted(path.name for path in place.iterdir()) == ["bundle.json", "pixels.npz"]


def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    bundle = _written(tmp_path)

    def break_off(_source, place, **_):
        place.mkdir()
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
        prepare(Wanted(), ["onnx-fp32"])
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
