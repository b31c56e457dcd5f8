"""Formats: recognized by name, and checked against the first bytes."""

from __future__ import annotations

import pickle
import zipfile

import pytest

from runtimes.errors import InputError
from runtimes.model_files.detect import SUFFIXES, format_of

HEADS = {
    "tflite": b"\x1c\0\0\0TFL3....",
    "edgetpu": b"\x1c\0\0\0TFL3....",
    "openvino": b"\xef\xbb\xbf<?xml version",
    "onnx": b"\x08\x07",
    "null": b"\0",
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.tflite", "tflite"),
        ("m.TFLITE", "tflite"),
        ("m_edgetpu.tflite", "edgetpu"),
        ("m.xml", "openvino"),
        ("m.onnx", "onnx"),
        ("m.null", "null"),
    ],
)
def test_a_file_of_its_suffix_is_known(tmp_path, name, expected):
    (tmp_path / name).write_bytes(HEADS[expected])
    assert format_of(tmp_path / name) == expected


@pytest.mark.parametrize(("name", "expected"), [("m.keras", "keras"), ("m.pt2", "pt2")])
def test_an_archive_of_its_suffix_is_known(tmp_path, name, expected):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("x", "y")
    assert format_of(tmp_path / name) == expected


def test_hdf5_is_keras(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n....")
    assert format_of(tmp_path / "m.h5") == "keras"


def test_a_savedmodel_is_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"a folder without manifest\.json or saved_model\.pb"):
        format_of(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert format_of(tmp_path) == "savedmodel"


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - {".onnx", ".null", ".engine", ".plan"}))
def test_other_bytes_under_a_suffix_are_refused(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"somebody else's bytes")
    with pytest.raises(InputError, match="it starts with 73 6f 6d 65") as caught:
        format_of(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_an_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="it is empty"):
        format_of(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_called_one(tmp_path, protocol):
    (tmp_path / "m.pt2").write_bytes(pickle.dumps({"a": 1}, protocol))
    with pytest.raises(InputError, match="a bare pickle"):
        format_of(tmp_path / "m.pt2")


def test_a_zip_file_over_several_disks_is_refused_in_words(tmp_path):
    """zipfile raises for it where it otherwise answers no."""
    path = tmp_path / "m.keras"
    locator = b"PK\x06\x07" + (2).to_bytes(4, "little") + bytes(8) + (3).to_bytes(4, "little")
    path.write_bytes(b"PK\x03\x04" + bytes(200) + locator + b"PK\x05\x06" + bytes(18))
    with pytest.raises(InputError, match="is not a keras model"):
        format_of(path)


def test_an_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / "m.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="unknown kind of model") as caught:
        format_of(tmp_path / "m.bin")
    assert ".tflite" in caught.value.hint


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".gguf", ".keras", ".xml"])
@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n",
            "a pointer of Git LFS",
            "git lfs pull",
        ),
        (b"\n<!DOCTYPE html>\n<html lang='en'>", "a web page", "download the file itself"),
        (b"<html><body>404", "a web page", "download the file itself"),
    ],
)
def test_what_a_download_writes_in_place_of_a_model_is_named(tmp_path, suffix, content, what, fix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        format_of(path)
    assert fix in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("m.onnx", b"\x18\0\0\0TFL3" + bytes(40), "m.onnx is not an onnx model: it is a TFLite file"),
        ("m.onnx", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        ("m.tflite", b"PK\x03\x04" + bytes(40), "a ZIP archive, as .keras and .pt2 models are"),
        ("m.keras", b"\x89HDF\r\n\x1a\n" + bytes(40), "m.keras is not a keras model: it is an HDF5 file"),
        ("m.keras", b"PK\x03\x04" + bytes(40), "its archive is damaged or cut short"),
        ("m.jit", b"PK\x03\x04" + bytes(40), "no engine opens PyTorch's .jit files"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what):
        format_of(tmp_path / name)


def test_weights_that_were_not_fetched_are_named(tmp_path):
    (tmp_path / "m.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11"></net>')
    (tmp_path / "m.bin").write_bytes(b"\x00" * 16)
    assert format_of(tmp_path / "m.xml") == "openvino"
    (tmp_path / "m.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n")
    with pytest.raises(InputError, match=r"m\.bin is not the model's weights: it is a pointer of Git LFS"):
        format_of(tmp_path / "m.xml")
