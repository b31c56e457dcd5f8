"""TensorRT's adapter and builder, against a module and a driver that are played: no machine here has a GPU.

What is played is only what NVIDIA ships: `tensorrt` and libcuda, whose memory is the host's.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from copy import copy

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact, Manifest, TensorSpec, write
from runtimes.errors import EngineError, EngineMissingError, InputError
from runtimes.jobs import DescribeJob
from runtimes.session import RunOptions
from runtimes.standalone import tensorrt_build
from runtimes.standalone.tensorrt_build import BuildError, Driver, engine_path, plan_of
from runtimes.worker import describe

FEEDS = {"wide": np.ones((1, 4), np.float32), "narrow": np.zeros((1, 3), np.float32)}
CACHE = "TRT-8201-EntropyCalibration2\nwide: 3c010204\n"


@pytest.fixture
def folder(tmp_path, models):
    """An artifact for TensorRT, as `edge convert` writes it."""
    return make(tmp_path / "artifact", models)


def make(folder, models, precision="fp16", cache=None):
    folder.mkdir()
    (folder / "m.onnx").write_bytes((models / "onnxruntime.onnx").read_bytes())
    if cache:
        (folder / cache).write_text(CACHE)
    spec = TensorSpec("wide", "float32", ("batch", 4))
    facts = {"tensorrt": {"release": "8.2.1", "cache": cache}}
    manifest = Manifest("m", "tensorrt", precision, "m.onnx", inputs=(spec,), conversion=facts)
    write(folder, manifest, {"wide": np.ones((1, 1, 4))}, {"sum": np.ones((1, 1, 3))})
    return folder


def opened(folder):
    return registry.tensor_engine("tensorrt").open(Artifact.open(folder), RunOptions())


def test_an_artifact_is_built_once_and_run(play, folder):
    trt, cuda = play()
    for _ in range(2):
        with opened(folder) as session:
            answer = session.run(FEEDS)
        np.testing.assert_array_equal(answer["double"], np.full((1, 4), 2))
    assert len(trt.built) == 1
    assert cuda.held == {}, "the device's memory is given back"
    assert [path.suffix for path in folder.glob("m-*")] == [".engine"]


@pytest.mark.parametrize("version", ["8.2.1.8", "10.3.0"])
def test_the_profiler_reports_each_layer(play, models, version):
    play(version)
    artifact = Artifact.open(models / "tensorrt.engine")
    found = registry.tensor_engine("tensorrt").profile(artifact, RunOptions(), FEEDS, 5)
    assert {one.name: round(one.ms, 6) for one in found.operators} == {"MatMul_0 + Add_1": 0.002, "Mul_2": 0.001}


def test_a_worker_tells_how_far_the_build_is(play, folder):
    play()
    told = []
    describe(DescribeJob(str(folder)), told.append)
    assert {"phase": "tensorrt: Building Engine (3 steps)"} in told


@pytest.mark.parametrize("version", ["8.2.1.8", "8.4.1", "8.5.2", "10.3.0", "11.0.0"])
def test_every_release_runs_by_its_own_names(play, models, version):
    play(version)
    with opened(models / "tensorrt.engine") as session:
        assert [spec.shape for spec in session.inputs] == [("batch", 4), ("batch", 3)]
        for rows in (1, 3):
            feeds = {name: np.repeat(values, rows, axis=0) for name, values in FEEDS.items()}
            assert session.run(feeds)["sum"].shape == (rows, 3)


@pytest.mark.parametrize(
    ("version", "precision", "flags"),
    [
        ("8.2.1", "fp32", []),
        ("8.2.1", "fp16", ["fp16"]),
        ("10.3.0", "int8", ["fp16", "int8"]),
        ("11.0.0", "fp16", []),
        ("11.0.0", "int8", []),
    ],
)
def test_precision_is_a_flag_until_the_graph_says_all(play, tmp_path, models, version, precision, flags):
    trt, _ = play(version)
    opened(make(tmp_path / "a", models, precision)).close()
    network, config = trt.built[0]
    assert config.flags == flags
    assert network.flags == (1 if trt.release < (10, 0) else 0)
    limit = config.max_workspace_size if trt.release < (8, 4) else config.pool[1]
    assert 2**20 < limit <= 2**30
    assert config.profiles[0].shapes == {"wide": ((1, 4),) * 3, "narrow": ((1, 3),) * 3}


@pytest.mark.parametrize(("version", "number"), [("8.2.1.8", "8201"), ("8.5.2", "8502"), ("10.3.0", "100300")])
def test_ranges_come_from_the_cache_under_the_release_that_reads_it(play, tmp_path, models, version, number):
    trt, _ = play(version)
    opened(make(tmp_path / "a", models, "int8", "calibration.cache")).close()
    calibrator = trt.built[0][1].int8_calibrator
    assert calibrator.read_calibration_cache().decode() == CACHE.replace("8201", number)
    assert calibrator.get_batch(["wide"]) is None
    assert calibrator.get_batch_size() == 1


def test_the_key_changes_with_all_that_an_engine_depends_on(play, tmp_path, models):
    _, cuda = play()
    plan = plan_of(make(tmp_path / "a", models, "int8", "calibration.cache"))
    first = engine_path(plan, "10.3.0", Driver())
    assert first == engine_path(copy(plan), "10.3.0", Driver())
    found = {first, engine_path(plan, "10.4.0", Driver())}
    for name, value in (("precision", "fp16"), ("batch", 2), ("cache", None)):
        changed = copy(plan)
        setattr(changed, name, value)
        found.add(engine_path(changed, "10.3.0", Driver()))
    for other in (type(cuda)((8, 7)), type(cuda)(version=12060)):
        play(cuda=other)
        found.add(engine_path(plan, "10.3.0", Driver()))
    plan.model.write_bytes(b"another model")
    found.add(engine_path(plan, "10.3.0", Driver()))
    assert len(found) == 8
    assert {path.parent for path in found} == {plan.model.parent}


def test_the_driver_says_what_it_is(play):
    play(cuda=None)
    assert (Driver().cuda(), Driver().capability()) == ("10.2", "5.3")
    with pytest.raises(BuildError, match="cuMemAlloc_v2 with error 2"):
        Driver().allocate(2**31)


def test_a_build_that_fails_quotes_tensorrt(play, folder):
    trt, _ = play()
    trt.fails = True
    with pytest.raises(
        EngineError, match=r"TensorRT 10\.3\.0 built no engine: Error Code 2: OutOfMemory \(no"
    ) as caught:
        opened(folder)
    assert "swap file" in caught.value.hint
    trt.fails, trt.unreadable = False, "In node 3: UNSUPPORTED_NODE: HardSwish"
    with pytest.raises(EngineError, match=r"cannot read .*m\.onnx: In node 3: UNSUPPORTED_NODE") as caught:
        opened(folder)
    assert "edge check" in caught.value.hint
    assert not list(folder.glob("*.partial"))


def test_an_engine_of_another_machine_is_refused_with_tensorrts_reason(play, tmp_path):
    play()
    path = tmp_path / "other.engine"
    path.write_bytes(b"built elsewhere")
    with pytest.raises(InputError, match="magic tag does not match") as caught:
        opened(path)
    assert "GPU model that built it" in caught.value.hint


def test_what_is_missing_names_what_to_install(play, models, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    if not registry.is_installed(registry.tensor_engine("tensorrt")):
        with pytest.raises(EngineMissingError) as caught:
            opened(models / "tensorrt.engine")
        assert "on a Jetson: sudo apt-get install python3-libnvinfer" in caught.value.hint
    play()

    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("runtimes.standalone.tensorrt_build.ctypes.CDLL", absent)
    with pytest.raises(EngineError, match="NVIDIA's driver is missing: libcuda") as caught:
        opened(models / "tensorrt.engine")
    assert "JetPack" in caught.value.hint


def test_the_builder_alone_builds_beside_the_model_and_prints_where(play, folder, capsys, monkeypatch):
    trt, _ = play()
    script = folder / "build_engine.py"
    shutil.copyfile(tensorrt_build.__file__, str(script))
    monkeypatch.setattr(sys, "argv", [str(script)])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == 0
    said = capsys.readouterr()
    assert len(trt.built) == 1
    assert len(set(said.out.split())) == 1
    assert said.out.split()[0].endswith(".engine")
    assert "Building Engine (3 steps)" in said.err


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"conversion": {"tensorrt": {"cache": 3}}})])
def test_the_builder_refuses_what_is_no_artifact(tmp_path, capsys, text):
    if text:
        (tmp_path / "manifest.json").write_text(text)
    assert tensorrt_build.main([str(tmp_path)]) == 4
    assert "has no artifact for TensorRT" in capsys.readouterr().err


def test_the_builder_names_what_this_python_lacks(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert tensorrt_build.main([str(folder)]) == 4
    assert "this Python has no tensorrt" in capsys.readouterr().err
    assert tensorrt_build.main(["--help"]) == 0
    assert tensorrt_build.main(["a", "b"]) == 2
