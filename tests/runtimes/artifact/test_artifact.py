"""The artifact: written once, readable anywhere, the same bytes each time, and nothing outside its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtimes.artifact import Artifact, Manifest, OutputMeaning, SelfCheck, sha256, write
from runtimes.errors import InputError

INPUTS = {"x": np.arange(8, dtype=np.float32).reshape(2, 1, 4)}
OUTPUTS = {"y": np.ones((2, 1, 3), np.float32)}


def made(folder):
    folder.mkdir()
    (folder / "m.null").write_bytes(b"\0")
    (folder / "labels.txt").write_text("one\ntwo\ndrei\n", encoding="utf-8")
    meaning, rule = OutputMeaning("probability", 0, "labels.txt"), SelfCheck("max_abs", 0.1, "synthetic")
    return write(folder, Manifest("m", "null", "fp32", "m.null", output=meaning, selfcheck=rule), INPUTS, OUTPUTS)


def test_what_is_written_is_read(tmp_path):
    written = made(tmp_path / "a")
    for path in (tmp_path / "a", tmp_path / "a" / "manifest.json"):
        read = Artifact.open(path)
        assert read == written
    assert read.model == tmp_path / "a" / "m.null"
    assert not read.is_bare
    assert sorted(read.manifest.files) == ["labels.txt", "m.null", "selfcheck.npz"]
    assert read.labels() == ["one", "two", "drei"]
    inputs, outputs = read.selfcheck()
    np.testing.assert_array_equal(inputs["x"], INPUTS["x"])
    np.testing.assert_array_equal(outputs["y"], OUTPUTS["y"])
    read.verify_digests()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        made(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_bare_file_is_an_artifact_that_knows_its_format(models):
    bare = Artifact.open(models / "onnxruntime.onnx")
    assert bare.is_bare
    assert (bare.manifest.format, bare.model) == ("onnx", models / "onnxruntime.onnx")
    assert bare.labels() is None
    with pytest.raises(InputError, match="has no self-check"):
        bare.selfcheck()


def test_a_bare_savedmodel_is_an_artifact(models):
    bare = Artifact.open(models / "tensorflow")
    assert (bare.manifest.format, bare.model) == ("savedmodel", models / "tensorflow")


def test_a_changed_file_is_named(tmp_path):
    artifact = made(tmp_path / "a")
    artifact.model.write_bytes(b"\1")
    with pytest.raises(InputError, match=r"m\.null has changed"):
        artifact.verify_digests()
    artifact.model.unlink()
    with pytest.raises(InputError, match=r"m\.null is missing"):
        artifact.verify_digests()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "link", ".", "a/../../secret"])
@pytest.mark.parametrize("place", ["model", "labels", "files"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name, place):
    made(tmp_path / "a")
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "secret")
    document = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    if place == "model":
        document["model"] = name
    elif place == "labels":
        document["output"]["labels"] = name
    else:
        document["files"] = {name: "0" * 64}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match="outside the artifact"):
        Artifact.open(tmp_path / "a")


def test_a_path_that_is_absent_is_reported(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Artifact.open(tmp_path / "absent")


def test_labels_that_are_no_text_are_reported(tmp_path):
    artifact = made(tmp_path / "a")
    (tmp_path / "a" / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as labels"):
        artifact.labels()


def test_a_manifest_of_any_bytes_is_one_line(tmp_path):
    made(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    content = manifest.read_bytes()
    generator = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        broken = bytearray(content)
        for position in generator.integers(0, len(content), 3):
            broken[position] = generator.integers(0, 256)
        manifest.write_bytes(bytes(broken))
        try:
            Artifact.open(tmp_path / "a")
        except InputError as error:
            messages.append(error.message)
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message or "manifest.json" not in message]


def test_sha256_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
