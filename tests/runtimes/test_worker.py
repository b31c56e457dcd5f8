import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import artifact
from runtimes.artifact.manifest import Manifest, SelfCheck, TensorSpec

SPEC = TensorSpec("x", "float32", (1,))


def serve(lines, module="runtimes.worker", folder=""):
    """What `python -m module` answers to these lines, and what it printed besides."""
    path = os.pathsep.join([str(folder), str(Path(runtimes.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", module],
        input="".join(line + "\n" for line in lines),
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def ask(**job):
    return serve([json.dumps(job)])[0][-1]


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "model.null"
    path.write_bytes(b"x")
    return str(path)


def write_artifact(folder, answer):
    folder.mkdir()
    (folder / "model.null").write_bytes(b"x")
    manifest = Manifest(
        "m",
        "null",
        "fp32",
        "model.null",
        inputs=(SPEC,),
        outputs=(SPEC,),
        selfcheck=SelfCheck("max_abs", 0.1, "synthetic"),
    )
    stored = np.array([[1.0], [2.0]], np.float32)
    artifact.write(folder, manifest, {"x": stored}, {"x": stored + answer})
    return str(folder)


def test_several_jobs_are_answered_in_turn_until_stdin_ends(bare):
    job = json.dumps({"job": "describe", "artifact": bare})
    answers, _ = serve([job, job])
    spec = {"name": "x", "dtype": "float32", "shape": [1], "quantization": None}
    expected = {"runtime": "null", "runtime_version": "1", "inputs": [spec], "outputs": [spec]}
    assert answers == [expected, expected]


def test_run_answers_every_sample_and_tells_how_far_it_is(bare, tmp_path):
    given, results = tmp_path / "in.npz", tmp_path / "out.bin"
    np.savez(given, x=np.array([[1.0], [2.0], [3.0]], np.float32))
    job = {"job": "run", "artifact": bare, "inputs": str(given), "outputs": str(results)}
    answers, _ = serve([json.dumps(job)])
    assert [a["progress"]["done"] for a in answers[:-1]] == [1, 2, 3]
    assert len(answers[-1]["latency_ms"]) == 3
    with np.load(results) as arrays:
        assert arrays["x"].tolist() == [[1.0], [2.0], [3.0]]


class Runs:
    """Jobs "run" for a worker, and the time of the first inference of the model that answered each."""

    def __init__(self, folder):
        self._given, self._results = folder / "in.npz", folder / "out.npz"
        np.savez(self._given, x=np.array([[1.0]], np.float32))

    def job(self, artifact, **more):
        job = {"job": "run", "artifact": artifact, "inputs": str(self._given), "outputs": str(self._results)}
        return json.dumps({**job, **more})

    def firsts(self, *lines):
        return [answer["first_ms"] for answer in serve(lines)[0] if "first_ms" in answer]


def test_a_model_stays_open_for_the_next_run_of_it(bare, tmp_path):
    runs = Runs(tmp_path)
    first, second, third = runs.firsts(*3 * [runs.job(bare)])
    assert first == second == third  # to the nanosecond: there was one first inference


@pytest.mark.parametrize("between", [{"job": "describe"}, {"options": {"threads": 2}}])
def test_any_other_job_closes_it(bare, tmp_path, between):
    runs = Runs(tmp_path)
    found = runs.firsts(runs.job(bare), runs.job(bare, **between), runs.job(bare))
    assert len(set(found)) == len(found) > 1


def test_verify_holds_the_artifact_against_its_self_check(tmp_path):
    good = ask(job="verify", artifact=write_artifact(tmp_path / "good", 0.0))
    bad = ask(job="verify", artifact=write_artifact(tmp_path / "bad", 1.0))
    assert good["passed"] is True
    assert bad["passed"] is False
    assert bad["metrics"]["max_abs"] == 1.0


def test_verify_holds_the_artifact_against_its_digests(tmp_path):
    folder = write_artifact(tmp_path / "m", 0.0)
    (tmp_path / "m" / "model.null").write_bytes(b"y")
    answer = ask(job="verify", artifact=folder)
    assert answer["error"] == "input"
    assert "has changed" in answer["message"]


def test_measure_is_served(bare):
    answer = ask(job="measure", artifact=bare, protocol={"name": "published", "runs": 3, "pause_s": 0})
    assert len(answer["samples_ms"]) == 3


@pytest.mark.parametrize(
    ("line", "error", "part"),
    [
        ('{"job": "describe", "artifact": "absent.onnx"}', "input", "does not exist"),
        ('{"job": "fly"}', "usage", "no job 'fly'"),
        ("[1]", "usage", "no job None"),
        ("not JSON", "worker", "JSONDecodeError"),
        ('{"job": "describe"}', "worker", "missing value in 'artifact'"),
    ],
)
def test_an_error_is_an_answer_and_the_worker_continues(line, error, part, bare):
    answers, _ = serve([line, json.dumps({"job": "describe", "artifact": bare})])
    assert answers[0]["error"] == error
    assert part in answers[0]["message"]
    assert answers[1]["runtime"] == "null"


def test_nothing_that_a_job_prints_or_reads_touches_the_protocol(tmp_path):
    (tmp_path / "chatty.py").write_text(
        "import os, subprocess, sys\n"
        "from runtimes.worker import serve\n"
        "def chat(job, report):\n"
        "    print('from print')\n"
        "    os.write(1, b'from number 1\\n')\n"
        "    subprocess.run(['echo', 'from a child'])\n"
        "    return {'read': sys.stdin.read()}\n"
        "serve({'chat': chat})\n"
    )
    answers, printed = serve(['{"job": "chat"}', '{"job": "chat"}'], "chatty", tmp_path)
    assert answers == [{"read": ""}, {"read": ""}]
    assert printed.count("from number 1") == 2
    assert printed.count("from a child") == 2


def test_running_out_of_memory_is_an_answer(tmp_path):
    (tmp_path / "greedy.py").write_text(
        "from runtimes.worker import serve\ndef eat(job, report):\n    raise MemoryError\nserve({'eat': eat})\n"
    )
    answers, _ = serve(['{"job": "eat"}'], "greedy", tmp_path)
    assert answers[0]["error"] == "worker"
    assert answers[0]["kind"] == "MemoryError"
