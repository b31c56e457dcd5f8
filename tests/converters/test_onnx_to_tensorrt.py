"""ONNX for TensorRT: adapted to a release, in its int8, with what a board needs to build an engine."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.base import ConversionOutput
from converters.calibration.dataset import Calibration
from converters.onnx_to_tensorrt import BUILDER, CACHE, SCRIPT, OnnxToTensorrt, script
from converters.options import ConvertOptions
from converters.pipeline.execute import _options_before
from converters.pipeline.request import ConvertRequest
from converters.tensorrt.quantization import cache_text
from converters.tensorrt.releases import Release
from runtimes.errors import InputError, RefusedError, UsageError
from runtimes.standalone import tensorrt_build

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT = onnx.TensorProto.FLOAT
SAMPLES = Calibration({"x": np.random.default_rng(0).normal(0, 1, (16, 1, 3, 8, 8)).astype(np.float32)})


def network(path: Path, *extra: str, opset: int = 17, batch: object = "batch") -> Path:
    """Conv → Clip, and then operators without attributes; one output."""
    weights = np.random.default_rng(1).normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32(0), "low"),
        numpy_helper.from_array(np.float32(6), "high"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["clipped"]),
    ]
    last = "clipped"
    for place, op in enumerate(extra):
        nodes.append(helper.make_node(op, [last], [f"{op}{place}"]))
        last = f"{op}{place}"
    start = helper.make_tensor_value_info("x", FLOAT, [batch, 3, 8, 8])
    end = helper.make_tensor_value_info(last, FLOAT, [batch, 4, 6, 6])
    graph = helper.make_graph(nodes, "g", [start], [end], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def model(tmp_path) -> Path:
    return network(tmp_path / "m.onnx")


def convert(model: Path, out: Path, precision: str = "fp32", calibration=SAMPLES, **options) -> ConversionOutput:
    out.mkdir(exist_ok=True)
    return OnnxToTensorrt().convert(model, out, OnnxToTensorrt.Options(precision=precision, **options), calibration)


def opset(path: Path) -> int:
    return onnx.load(path).opset_import[0].version


def answers(path: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": sample})[0] for sample in SAMPLES.samples["x"]])


@pytest.mark.parametrize(("release", "expected"), [("8.2.1", 13), ("8.5.2", 17), ("10.3.0", 20), (None, 20)])
def test_the_graph_has_the_newest_opset_of_the_release(tmp_path, release, expected):
    model = network(tmp_path / "m.onnx", opset=13)
    made = convert(model, tmp_path / "out", release=release)
    assert opset(made.model) == expected
    np.testing.assert_allclose(answers(made.model), answers(model), atol=1e-6)


def test_an_opset_that_is_asked_for_is_met(model, tmp_path):
    assert opset(convert(model, tmp_path / "out", release="10.3.0", opset=18).model) == 18


def test_a_graph_that_cannot_be_upgraded_stays_unless_another_opset_was_asked_for(tmp_path):
    old = network(tmp_path / "old.onnx", "Celu", opset=11)  # Celu came with opset 12: there is no way on from 11
    assert opset(convert(old, tmp_path / "as-it-is", release="8.2.1").model) == 11
    with pytest.raises(RefusedError, match=r"has opset 11 and cannot be upgraded to opset 13: .*Celu") as caught:
        convert(old, tmp_path / "asked", release="8.2.1", opset=13)
    assert "leave --opset out" in caught.value.hint


@pytest.mark.parametrize(
    ("release", "asked", "written"), [("8.2.1", None, 13), ("10.3.0", None, 17), (None, None, 17), ("8.2.1", 11, 11)]
)
def test_the_step_before_writes_what_the_release_reads(tmp_path, release, asked, written):
    options = ConvertOptions(precision="int8", release=release, opset=asked)
    request = ConvertRequest(
        source=tmp_path / "m.keras", steps=(), format="tensorrt", options=options, out=tmp_path, scratch=tmp_path
    )
    before = _options_before(request, OnnxToTensorrt())
    assert (before.opset, before.precision) == (written, "fp32")


def test_a_newer_graph_is_brought_down_or_refused(tmp_path):
    assert opset(convert(network(tmp_path / "a.onnx", opset=17), tmp_path / "a", release="8.2.1").model) == 13


def test_a_free_batch_is_fixed(model, tmp_path):
    graph = onnx.load(convert(model, tmp_path / "out").model).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1


def test_operators_that_the_release_lacks_are_named_node_by_node(tmp_path):
    model = network(tmp_path / "m.onnx", "Hardmax", "Relu", "Hardmax")
    with pytest.raises(RefusedError) as caught:
        convert(model, tmp_path / "out", release="8.2.1")
    assert "node 2 Hardmax 'Hardmax0'" in caught.value.message
    assert "node 4 Hardmax 'Hardmax2'" in caught.value.message
    assert caught.value.hint.count("Hardmax") == 1
    assert convert(model, tmp_path / "newer", release="10.3.0").model.is_file()
    many = network(tmp_path / "many.onnx", *["Hardmax"] * 9)
    with pytest.raises(RefusedError, match="and 4 more"):
        convert(many, tmp_path / "many", release="8.2.1")


def test_fp16_is_a_flag_until_the_graph_has_to_say_it(model, tmp_path):
    before = convert(model, tmp_path / "a", "fp16", release="10.3.0", scratch=str(tmp_path / "scratch"))
    assert _types(before.model) == {FLOAT}
    assert "--fp16" in (tmp_path / "a" / SCRIPT).read_text()
    assert before.proxy is not None
    assert _types(before.proxy.model) == {FLOAT}  # in which every value is rounded to fp16
    weights = next(one for one in onnx.load(before.proxy.model).graph.initializer if one.name == "weights")
    values = numpy_helper.to_array(weights)
    np.testing.assert_array_equal(values, values.astype(np.float16).astype(np.float32))
    assert "every layer rounded that TensorRT may compute in fp16" in before.notes[-1]
    after = convert(model, tmp_path / "b", "fp16", release="11.0.0")
    assert _types(after.model) == {onnx.TensorProto.FLOAT16}
    assert "--fp16" not in (tmp_path / "b" / SCRIPT).read_text()
    np.testing.assert_allclose(answers(after.model), answers(model), atol=0.02)


def _types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer if tensor.name.startswith("weights")}


def test_explicit_int8_is_symmetric_with_a_scale_for_each_channel(model, tmp_path):
    made = convert(model, tmp_path / "out", "int8", release="8.5.2")
    graph = onnx.load(made.model).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 4
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert max(constants[node.input[1]].size for node in pairs) == 4
    assert not any(tensor.data_type == onnx.TensorProto.INT32 for tensor in graph.initializer)
    makers = {node.output[0]: node.op_type for node in graph.node}
    clip = next(node for node in graph.node if node.op_type == "Clip")
    assert makers[clip.input[0]] == "Conv", "nothing may stand between a convolution and its activation"
    assert np.abs(answers(made.model) - answers(model)).max() < 0.2
    assert (made.proxy.model, made.facts["tensorrt"]["cache"]) == (made.model, None)


def test_implicit_int8_is_a_float_graph_with_a_cache(model, tmp_path):
    out = tmp_path / "out"
    made = convert(model, out, "int8", release="8.5.2", implicit=True, scratch=str(tmp_path / "scratch"))
    assert not any("Quantize" in node.op_type for node in onnx.load(made.model).graph.node)
    head, *lines = (out / CACHE).read_text().splitlines()
    assert head == "TRT-8502-EntropyCalibration2"
    scales = {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in (x.split(": ") for x in lines)}
    assert set(scales) == {"x", "sum", "clipped"}
    assert scales["x"] == pytest.approx(np.abs(SAMPLES.samples["x"]).max() / 127)
    assert scales["clipped"] == pytest.approx(answers(model).max() / 127)
    assert f"--calib={CACHE}" in (out / SCRIPT).read_text()
    assert any("Quantize" in node.op_type for node in onnx.load(made.proxy.model).graph.node)


def test_the_same_source_gives_the_same_files(model, tmp_path):
    for name in ("a", "b"):
        convert(model, tmp_path / name, "int8", implicit=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"m.onnx", SCRIPT, BUILDER, CACHE}
    assert (tmp_path / "a" / BUILDER).read_bytes() == Path(tensorrt_build.__file__).read_bytes()


def test_a_release_without_implicit_int8_refuses_it(model, tmp_path):
    with pytest.raises(RefusedError, match=r"TensorRT 11\.0 does not read calibration caches") as caught:
        convert(model, tmp_path / "out", "int8", release="11.0.0", implicit=True)
    assert "leave out --implicit" in caught.value.hint


def test_releases():
    assert [Release.read(text).number for text in ("8.2.1", "8.5.2.2", "10.3", "10.13.3-1")] == [
        8201,
        8502,
        100300,
        101303,
    ]
    assert [Release.of_board(opset).text for opset in (13, 17, 20, None)] == ["8.2.1", "8.5.2", "10.3.0", "10.3.0"]
    assert [Release.read(text).max_opset for text in ("8.0", "8.4", "10.3", "10.15", "11.1")] == [13, 17, 20, 24, 24]
    with pytest.raises(UsageError, match="'newest' is not a release"):
        Release.read("newest")
    with pytest.raises(RefusedError, match=r"TensorRT 7\.1"):
        Release.read("7.1.3")


def test_a_scale_is_the_largest_value_over_127_as_a_big_endian_float():
    assert (
        cache_text({"b": 0.0, "a": 127.0}, Release(8, 2, 1))
        == "TRT-8201-EntropyCalibration2\na: 3f800000\nb: 00000000\n"
    )


@pytest.mark.parametrize(
    ("release", "precision", "words"),
    [
        ("8.2.1", "fp32", "--onnx=m.onnx --saveEngine=m.engine --workspace=512"),
        ("8.2.1", "fp16", "--onnx=m.onnx --saveEngine=m.engine --fp16 --workspace=512"),
        ("10.3.0", "int8", "--onnx=m.onnx --saveEngine=m.engine --int8 --fp16 --memPoolSize=workspace:512"),
        ("11.0.0", "int8", "--onnx=m.onnx --saveEngine=m.engine --memPoolSize=workspace:512"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_script_gives_trtexec_what_its_release_understands(tmp_path, release, precision, words):
    place, program = tmp_path / "it's here" / SCRIPT, tmp_path / "trtexec"
    place.parent.mkdir()
    place.write_text(script("m.onnx", Release.read(release), precision, None))
    program.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["sh", place, "--verbose"], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{place.parent} {words} --verbose"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_script_names_what_is_missing(tmp_path):
    place = tmp_path / SCRIPT
    place.write_text(script("m.onnx", Release(8, 2, 1), "fp16", None))
    done = subprocess.run(["sh", place], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install libnvinfer-bin" in done.stderr


def test_a_broken_model_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(network(tmp_path / "m.onnx").read_bytes()[:200])
    with pytest.raises(InputError, match=r"broken\.onnx"):
        convert(path, tmp_path / "out")


@pytest.fixture
def old_python() -> str:
    """A Python 3.6, which is what JetPack 4.6 has."""
    found = [shutil.which("python3.6"), *Path.home().glob(".pyenv/versions/3.6.*/bin/python")]
    python = next((str(one) for one in found if one and _starts(one)), None)
    if python is None:
        pytest.skip("no Python 3.6 on this machine (PATH, pyenv)")
    return python


def _starts(python: str | Path) -> bool:
    """pyenv's shims may name a version that is not there."""
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


def test_the_builder_runs_under_the_jetson_nanos_python(model, tmp_path, old_python):
    """As far as without TensorRT: it reads the artifact, and says what is missing."""
    from converters.pipeline.convert import convert as run
    from converters.pipeline.request import ConvertRequest

    out = tmp_path / "artifact"
    out.mkdir()
    options = ConvertOptions(precision="fp16", release="8.2.1")
    run(
        ConvertRequest(
            source=model,
            steps=("onnx_to_tensorrt",),
            format="tensorrt",
            options=options,
            out=out,
            scratch=tmp_path / "scratch",
        ),
        lambda progress: None,
    )
    done = subprocess.run([old_python, out / BUILDER], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "this Python has no tensorrt" in done.stderr


def test_from_a_model_to_an_artifact_that_was_proven_in_its_place(model, tmp_path, capsys):
    """As a user, on a machine without TensorRT."""
    from edge.cli import main
    from runtimes.artifact import Artifact

    out = tmp_path / "artifact"
    assert main(["convert", str(model), "--for", "jetson-nano", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "tensorrt fp16" in said
    assert "with TensorRT 8.2: copy the folder there and run sh build.sh" in said
    artifact = Artifact.open(out)
    assert artifact.manifest.proof["run_as"] == "onnx"
    assert artifact.manifest.conversion["tensorrt"] == {"release": "8.2.1", "cache": None}
    assert set(artifact.manifest.files) == {"m.onnx", SCRIPT, BUILDER, "selfcheck.npz"}
