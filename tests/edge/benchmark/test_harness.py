import json
from collections import Counter
from pathlib import Path

import pytest

from edge.benchmark import Measurement, Setup, failure, measure_all, rows_of
from runtimes.artifact import Manifest, write
from runtimes.artifact.json_fields import Fields
from runtimes.errors import (
    EngineError,
    EngineMissingError,
    InputError,
    RefusedError,
    UsageError,
    WorkerCrashedError,
    WorkerOutOfMemoryError,
    WorkerTimeoutError,
)
from runtimes.jobs import EngineOptions, MeasureJob

FEW = {"name": "published", "runs": 4, "pause_s": 0}
# A worker whose artifact's name says what it does with each job.
MODULE = """
import ctypes, os, time
from runtimes.errors import EngineMissingError
from runtimes.worker import HANDLERS, serve

def measure(job, report):
    name = os.path.basename(job["artifact"])
    if name == "crash.null":
        ctypes.string_at(0)
    if name == "hang.null":
        time.sleep(600)
    if name == "missing.null":
        raise EngineMissingError("the engine 'x' is not installed", "pip install 'edge-toolkit[x]'")
    return {**HANDLERS["measure"](job, report), "pid": os.getpid()}

serve({"measure": measure})
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "moody_worker.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "moody_worker"


@pytest.fixture
def setup(module, tmp_path):
    def make(name: str, **more) -> Setup:
        path = tmp_path / f"{name}.null"
        path.write_bytes(b"x")
        return Setup(id=name, title=name.title(), artifact=path, protocol=FEW, worker=module, **more)

    return make


def test_rounds_interleave_and_every_other_one_goes_backwards(setup):
    setups = [setup("a"), setup("b"), setup("c")]
    found = list(measure_all(setups, rounds=3))
    order = [(measurement.round, measurement.setup.id) for measurement in found]
    assert order == [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "b"), (1, "a"), (2, "a"), (2, "b"), (2, "c")]
    assert len({measurement.values["pid"] for measurement in found}) == 9


def test_a_failing_setup_is_a_row_is_not_tried_again_and_the_run_continues(setup):
    setups = [setup("crash"), setup("good"), setup("missing")]
    found = list(measure_all(setups, rounds=2))
    assert Counter(m.setup.id for m in found) == {"good": 2, "crash": 1, "missing": 1}
    rows = {row.setup: row for row in rows_of(found)}
    assert rows["good"].status == "ok"
    assert rows["crash"].status == "crashed"
    assert "SIGSEGV" in rows["crash"].message
    assert rows["missing"].status == "engine missing"
    assert "edge-toolkit[x]" in rows["missing"].hint


def test_a_setup_that_hangs_is_a_row_too(setup):
    for limit_s in (3, 15, 60):  # a busy machine needs longer for the good one
        rows = rows_of(measure_all([setup("hang"), setup("good")], rounds=1, timeout_s=limit_s))
        assert rows[0].status == "timeout"
        if rows[1].status == "ok":
            return
    pytest.fail("the setup after the one that hangs had no time left in a minute of its own")


def test_each_measurement_is_yielded_as_soon_as_it_is_there(setup):
    found = measure_all([setup("good"), setup("hang")], rounds=1, timeout_s=600)
    assert next(found).is_ok


def test_progress_names_setup_round_and_phase(setup):
    heard = []
    list(measure_all([setup("a")], rounds=2, on_progress=lambda s, n, phase: heard.append((s.id, n, phase))))
    assert ("a", 0, "loading") in heard
    assert ("a", 1, "measuring") in heard


# A worker that says which jobs it does; its build takes as long as the artifact's name says, in seconds.
BUILDER = """
import os, time
from runtimes.worker import serve

def describe(job, report):
    report({"phase": "tensorrt: building for 10 s"})
    time.sleep(float(os.path.basename(job["artifact"])))
    return {"runtime": "null", "runtime_version": "1", "inputs": [], "outputs": []}

def measure(job, report):
    return {"status": "ok", "samples_ms": [1.0]}

serve({"describe": describe, "measure": measure})
"""


@pytest.fixture
def built(tmp_path, monkeypatch):
    """What is measured of an artifact whose build takes so many seconds, and each phase that was heard."""
    (tmp_path / "builder_worker.py").write_text(BUILDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def measured(seconds: str) -> tuple[list[Measurement], list[str]]:
        folder = tmp_path / seconds
        folder.mkdir()
        (folder / "m.onnx").write_bytes(b"x")
        write(folder, Manifest("m", "tensorrt", "fp16", "m.onnx"), {}, {})
        setup, heard = Setup(id="m", title="m", artifact=folder, worker="builder_worker"), []
        found = list(measure_all([setup], 2, 60, on_progress=lambda _, number, phase: heard.append(phase)))
        return found, heard

    return measured


def test_an_engine_is_built_before_it_is_measured_and_once(built):
    found, heard = built("0")
    assert [one.is_ok for one in found] == [True, True]
    assert heard == ["tensorrt: building for 10 s"]


def test_the_build_has_a_time_of_its_own(built, monkeypatch):
    monkeypatch.setattr("edge.benchmark.harness._BUILD_S", 2.0)  # less than the 60 s of the measurement
    (one,), _ = built("600")
    assert one.values["status"] == "timeout"
    assert "'describe' of 600 exceeded its time limit of 2 s" in one.values["message"]


def test_no_rounds_are_refused(setup):
    with pytest.raises(UsageError, match="rounds is 0"):
        next(measure_all([setup("a")], rounds=0))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WorkerTimeoutError("m"), "timeout"),
        (WorkerOutOfMemoryError("m"), "out of memory"),
        (WorkerCrashedError("m"), "crashed"),
        (EngineMissingError("m"), "engine missing"),
        (EngineError("m"), "engine failed"),
        (InputError("m"), "unreadable"),
        (RefusedError("m"), "unsupported"),
        (UsageError("m"), "unsupported"),
    ],
)
def test_every_error_has_its_word(error, status):
    assert failure(error) == {"status": status, "error": error.branch, "message": "m", "hint": ""}


def test_a_setup_becomes_the_job_of_its_round(tmp_path):
    setup = Setup(
        id="i",
        title="t",
        artifact=Path("m.onnx"),
        runtime="onnxruntime",
        options=EngineOptions(threads=2),
        protocol=FEW,
        inputs=tmp_path / "in.npz",
        input_kind="picture",
        evaluate=tmp_path / "eval.npz",
        outputs=tmp_path / "out.npz",
    )
    job = setup.job(0)
    assert isinstance(job, MeasureJob)
    assert (job.artifact, job.runtime, job.options) == ("m.onnx", "onnxruntime", EngineOptions(threads=2))
    assert job.input_kind == "picture"
    assert job.evaluate == str(tmp_path / "eval.npz")
    assert setup.job(1).evaluate is None
    assert Setup(id="i", title="t", artifact=Path("m.onnx")).job(0).inputs is None
    assert MeasureJob.from_json(Fields(json.loads(json.dumps(job.to_json())), "the job")) == job
