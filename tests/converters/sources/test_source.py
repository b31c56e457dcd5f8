"""Sources are recognized without running them, and unsafe ones are refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest

from converters.sources.artifact import open_source
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest, sha256
from runtimes.errors import InputError


def test_a_bare_model(classifier):
    source = open_source(classifier)
    assert (source.format, source.precision, source.model) == ("onnx", "unknown", classifier)
    assert source.sha256 == sha256(classifier)


def test_an_artifact(tmp_path):
    (tmp_path / "model.null").write_bytes(b"0")
    artifacts.write(tmp_path, Manifest("m", "null", "fp32", "model.null"), {}, {})
    source = open_source(tmp_path)
    assert (source.format, source.precision) == ("null", "fp32")


def test_an_artifact_whose_files_changed(tmp_path):
    (tmp_path / "model.null").write_bytes(b"0")
    artifacts.write(tmp_path, Manifest("m", "null", "fp32", "model.null"), {}, {})
    (tmp_path / "model.null").write_bytes(b"1")
    with pytest.raises(InputError, match="has changed"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.pt", "torch.export"),
        ("model.pth", "torch.export"),
        ("model.pkl", "never opened"),
        ("model.safetensors", "--weights"),
        ("model.ckpt", "--weights"),
        ("model.hdf5", "rename it to .h5"),
        ("model.tar.gz", "unpack it"),
        ("model.onnx.data", "the .onnx next to it"),
        ("model.engine", "built from"),
        ("model.bin", ".xml"),
    ],
)
def test_files_that_are_no_source_name_what_is(tmp_path, name, hint):
    (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / name)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_file_that_is_not_there(tmp_path):
    for name in ("model.onnx", "model.pt"):
        with pytest.raises(InputError, match="does not exist"):
            open_source(tmp_path / name)


def test_a_pickle_by_another_name(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "model.pt2"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="pickle"):
        open_source(path)
    assert not (tmp_path / "ran").exists()


def test_external_data_outside_the_folder(tmp_path, classifier):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(classifier)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    classifier.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside"):
        open_source(classifier)


def test_an_archive_that_unpacks_beyond_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("converters.sources.artifact.MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**21))
    assert path.stat().st_size < 2**20
    with pytest.raises(InputError, match="unpacks to more"):
        open_source(path)


def test_a_savedmodel_that_links_outside(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"0")
    (folder / "variables").symlink_to(tmp_path)
    with pytest.raises(InputError, match="outside its folder"):
        open_source(folder)


def test_the_digest_of_a_folder_depends_on_names_and_contents(tmp_path):
    digests = set()
    for names, contents in ((("a", "b"), (b"1", b"2")), (("a", "b"), (b"2", b"1")), (("a", "c"), (b"1", b"2"))):
        folder = tmp_path / "".join([*names, contents[0].decode()])
        folder.mkdir()
        (folder / "saved_model.pb").touch()
        for name, content in zip(names, contents, strict=True):
            (folder / name).write_bytes(content)
        digests.add(open_source(folder).sha256)
    assert len(digests) == 3


def test_a_broken_archive(tmp_path):
    path = tmp_path / "model.keras"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
    content = bytearray(buffer.getvalue())
    content[content.index(b"PK\x01\x02") : content.index(b"PK\x01\x02") + 4] = b"XXXX"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.keras"):
        open_source(path)


def test_an_artifact_is_read_once_to_be_hashed(tmp_path, monkeypatch):
    (tmp_path / "model.null").write_bytes(b"0")
    artifacts.write(tmp_path, Manifest("m", "null", "fp32", "model.null"), {}, {})
    read: list[str] = []

    def counted(path):
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr(artifacts, "sha256", counted)
    assert open_source(tmp_path).sha256 == sha256(tmp_path / "model.null")
    assert read.count("model.null") == 1
    read.clear()
    assert open_source(tmp_path, hashed=False).sha256 == ""
    assert read == []


def test_a_folder_that_is_a_model_is_read_once_to_be_hashed(tmp_path, monkeypatch):
    model = tmp_path / "artifact" / "saved"
    model.mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"graph")
    (model / "weights").write_bytes(b"weights")
    artifacts.write(tmp_path / "artifact", Manifest("m", "savedmodel", "fp32", "saved"), {}, {})
    expected = sha256(model)
    read: list[str] = []

    def counted(path):
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr(artifacts, "sha256", counted)
    assert open_source(tmp_path / "artifact").sha256 == expected
    assert read.count("weights") == read.count("saved_model.pb") == 1
