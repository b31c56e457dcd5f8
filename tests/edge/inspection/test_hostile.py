"""Hostile files: one clear line, the right status, no traceback, and nothing written or run."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.workers.process import Worker
from runtimes.errors import InputError
from runtimes.jobs import DescribeJob

MODELS = Path(__file__).parents[2] / "runtimes" / "models"
MAGIC = {
    "a.onnx": b"\x08\x07\x12",
    "a.tflite": b"\x1c\0\0\0TFL3",
    "a_edgetpu.tflite": b"\x1c\0\0\0TFL3edgetpu-custom-op",
    "a.xml": b"<?xml version='1.0'?><net>",
    "a.keras": b"PK\x03\x04",
    "a.h5": b"\x89HDF\r\n\x1a\n",
    "a.pt2": b"PK\x03\x04",
}
ENGINES = {"a.onnx": "onnxruntime", "a.tflite": "ai_edge_litert", "a.xml": "openvino", "a.keras": "keras"}
ENGINES |= {"a.h5": "keras", "a.pt2": "torch"}


def needs(library: str) -> None:
    """Skip where an engine is not installed; it is not imported here, the parent of workers never does."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command is run in; what it leaves there is checked by `refused`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def picture(place: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(place / "gray.png")
    return place / "gray.png"


def refused(capsys: pytest.CaptureFixture[str], *words: object, status: int = 3) -> str:
    """Run a command that has to fail: its message. It may not write anything, or say more than it has to."""
    before = snapshot()
    assert main([str(word) for word in words]) == status
    printed = capsys.readouterr()
    assert snapshot() == before
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("assumed: ")]
    assert 1 <= len(lines) <= 2, printed.err
    assert lines[0].startswith("edge: ")
    assert "Traceback" not in printed.err
    return lines[0]


def snapshot() -> list[Path]:
    return sorted(Path.cwd().rglob("*"))


# ---- files that are not what their name says


@pytest.mark.parametrize("name", MAGIC)
@pytest.mark.parametrize("start", ["noise", "right magic"])
def test_noise_is_refused_by_inspect_and_by_engines(capsys, place, picture, name, start):
    noise = random.Random(name).randbytes(5000)
    (place / name).write_bytes((MAGIC[name] if start == "right magic" else b"") + noise)
    refused(capsys, "inspect", name)
    if name in ENGINES:
        needs(ENGINES[name])
        refused(capsys, "run", name, picture, "--preprocess", "keras-mobilenet-v2", "--output", "logit")


@pytest.mark.parametrize("name", ["litert.tflite", "quantized.tflite", "onnxruntime.onnx", "openvino.xml", "torch.pt2"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_files_are_refused(capsys, place, name, share):
    content = (MODELS / name).read_bytes()
    (place / name).write_bytes(content[: int(len(content) * share)])
    refused(capsys, "inspect", name)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(capsys, place):
    os.mkfifo(place / "pipe.onnx")
    assert "is not a plain file" in refused(capsys, "inspect", "pipe.onnx")
    (place / "loop.onnx").symlink_to("loop.onnx")
    assert "does not exist" in refused(capsys, "inspect", "loop.onnx")


# ---- pickles


class Payload:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("owned"),))


def test_a_pickle_named_pt2_is_never_opened(capsys, place, picture):
    needs("torch")
    (place / "a.pt2").write_bytes(pickle.dumps(Payload()))
    assert "pickle" in refused(capsys, "inspect", "a.pt2")
    assert "pickle" in refused(capsys, "run", "a.pt2", picture)


@pytest.mark.parametrize("member", ["data.pkl", "data/sample_inputs/model.pt", "data/weights/weight_0"])
def test_pickles_within_an_archive_are_never_opened(capsys, place, picture, member):
    needs("torch")
    with zipfile.ZipFile(MODELS / "torch.pt2") as old, zipfile.ZipFile(place / "a.pt2", "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        members[f"torch/{member}"] = pickle.dumps(Payload())
        for name, content in members.items():
            new.writestr(name, content)
    before = snapshot()
    assert main(["inspect", "a.pt2"]) in (0, 3)  # the graph is JSON; it may be whole
    assert main(["bench", "a.pt2", "--protocol", "published", "--runs", "2"]) in (0, 3, 8)
    assert snapshot() == before


def test_a_pickled_model_is_distinguished_from_an_exported_program(capsys, place):
    with zipfile.ZipFile(place / "a.pt2", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Payload()))
        archive.writestr("a/version", "3\n")
    assert "contains no exported program" in refused(capsys, "inspect", "a.pt2")


# ---- archives


def bomb(path: Path, member: str) -> None:
    """An archive of some 300 kB that unpacks to 300 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as stream:
        for _ in range(300):
            stream.write(bytes(2**20))


@pytest.mark.parametrize(("name", "member"), [("a.keras", "config.json"), ("a.pt2", "a/models/model.json")])
def test_a_zip_bomb_is_not_unpacked(capsys, place, name, member):
    bomb(place / name, member)
    assert "unpacks to more than" in refused(capsys, "inspect", name)


@pytest.mark.parametrize("member", ["../outside.txt", "/tmp/outside.txt", "..\\outside.txt"])
def test_members_with_paths_of_their_own_are_not_unpacked(capsys, place, member):
    with zipfile.ZipFile(MODELS / "keras.keras") as old, zipfile.ZipFile(place / "a.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr(member, "x")
    before = snapshot()
    assert main(["inspect", "a.keras"]) == 0
    assert snapshot() == before


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "1" * 10_000, '{"config": 1}', '{"config": {"layers": [null]}}', "null", "", "\ud800"]
)
def test_json_that_is_no_model_is_refused(capsys, place, config):
    with zipfile.ZipFile(place / "a.keras", "w") as archive:
        archive.writestr("config.json", config.encode("utf-8", "surrogatepass"))
    refused(capsys, "inspect", "a.keras")


def test_a_keras_layer_of_unknown_code_is_not_run(capsys, place, picture):
    needs("keras")
    import marshal

    code = marshal.dumps(compile("__import__('pathlib').Path('owned').touch()", "x", "exec"))
    function = {"class_name": "__lambda__", "config": {"value": [code.hex(), None, None]}}
    layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil", "function": function}}
    given = {"class_name": "InputLayer", "module": "keras.layers"}
    given["config"] = {"name": "x", "batch_shape": [1, 8, 8, 3], "dtype": "float32"}
    model = {"class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": [given, layer]}}
    with zipfile.ZipFile(place / "a.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")
    refused(capsys, "run", "a.keras", picture, "--preprocess", "keras-mobilenet-v2", "--output", "logit")


# ---- paths that lead outside


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", "link.bin"])
def test_onnx_weights_outside_the_models_folder_are_refused(capsys, place, picture, location):
    pytest.importorskip("onnx")
    needs("onnxruntime")
    from onnx import TensorProto, helper

    (place / "secret.bin").write_bytes(bytes(4096))
    (place / "model").mkdir()
    (place / "model" / "link.bin").symlink_to(place / "secret.bin")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weights])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    (place / "model" / "a.onnx").write_bytes(content)
    assert "outside its folder" in refused(capsys, "inspect", "model/a.onnx")
    with Worker() as worker, pytest.raises(InputError, match="outside its folder"):
        worker.run(DescribeJob(str(place / "model" / "a.onnx")), timeout_s=60)
    assert "outside its folder" in refused(capsys, "convert", "model/a.onnx", "--to", "openvino", "--out", "out")


def artifact(place: Path, **changes: object) -> Path:
    folder = place / "artifact"
    folder.mkdir()
    (folder / "m.onnx").write_bytes((MODELS / "onnxruntime.onnx").read_bytes())
    manifest = {"schema": 1, "name": "m", "format": "onnx", "precision": "fp32", "model": "m.onnx"}
    manifest |= {"inputs": [], "outputs": [], "files": {"m.onnx": "0"}, **changes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


OUTSIDE = [
    {"model": "../gray.png"},
    {"model": "/etc/passwd"},
    {"model": "link.onnx"},
    {"files": {"../gray.png": "0"}},
    {"output": {"kind": "logit", "label_offset": 0, "labels": "../gray.png"}},
]


@pytest.mark.parametrize("changes", OUTSIDE, ids=str)
@pytest.mark.parametrize("command", ["inspect", "verify", "bench", "run"])
def test_a_manifest_that_points_outside_is_refused(capsys, place, picture, command, changes):
    folder = artifact(place, **changes)
    (folder / "link.onnx").symlink_to(MODELS / "onnxruntime.onnx")
    arguments = [picture] if command == "run" else []
    assert "outside the artifact" in refused(capsys, command, folder, *arguments)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{" * 50_000, '{"schema": ' + "9" * 9000 + "}", '{"schema": 1}', '{"schema": 1, "name": 7}', "\0"],
    ids=lambda text: text[:20],
)
def test_a_broken_manifest_is_refused(capsys, place, text):
    folder = artifact(place)
    (folder / "manifest.json").write_text(text)
    assert "manifest.json" in refused(capsys, "inspect", folder)


# ---- pictures


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(100_000, 1, bytes(300_001)), "100000 × 1 pixels"),
        (png(100_000, 100_000, b""), "pixels"),
        (png(8, 8, b""), "cannot be read as a picture"),
        (png(8, 8, random.Random(0).randbytes(200))[:150], "cannot be read as a picture"),
        (b"", "cannot be read as a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n(touch owned) run", "cannot be read as a picture"),
    ],
    ids=["wide", "huge", "without pixels", "truncated", "empty", "postscript"],
)
def test_hostile_pictures_are_refused(capsys, place, content, words):
    pytest.importorskip("PIL")
    needs("onnxruntime")
    (place / "evil.png").write_bytes(content)
    onnx_classifier(place / "m.onnx")
    message = refused(capsys, "run", "m.onnx", "evil.png", "--preprocess", "torchvision")
    assert "evil.png" in message
    assert words in message


def onnx_classifier(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Flatten", ["m"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


# ---- the way a person starts it


def test_a_broken_model_ends_the_program_with_status_3_and_two_lines(place):
    (place / "a.onnx").write_bytes(b"\xff" * 99)
    done = subprocess.run([sys.executable, "-m", "edge", "inspect", "a.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 2
