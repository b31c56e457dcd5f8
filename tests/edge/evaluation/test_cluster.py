"""`edge evaluate --cluster` on a real Dask scheduler and worker processes of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from edge.evaluation.runner import EvaluateOptions
from runtimes.errors import EdgeError, EngineMissingError, HostError, InputError, UsageError, WorkerCrashedError

COUNT = 60
HINTS = edge.ModelHints(
    preprocess_options=edge.PreprocessOptions(mean=(0.0,) * 3, scale=(1.0,) * 3, resize="stretch"), task="segmentation"
)
# Programs that a worker runs before it starts: they make it slow, or kill it in the middle of a chunk.
SLOW = "time.sleep(0.3)"
DIES_ONCE = "open(marker, 'x').close(); os.kill(os.getpid(), signal.SIGKILL)"
DIES = "os.kill(os.getpid(), signal.SIGKILL)"
COUNTS = "open(marker, 'a').write(f'{len(model._files)} {model._folder is None}\\n')"
PRELOAD = """
import os, signal, time
from edge.evaluation import cluster_worker
marker = {marker!r}
whole = getattr(cluster_worker, "whole", cluster_worker.score_chunk)  # a nanny runs this twice
cluster_worker.whole = whole
def changed(model, chunk):
    try:
        {line}
    except FileExistsError:
        pass
    return whole(model, chunk)
cluster_worker.score_chunk = changed
"""


class RunningCluster:
    """A scheduler and its workers, whose logs are in `folder`."""

    def __init__(self, folder: Path, stack: ExitStack, until) -> None:
        self.folder, self._stack, self._until = folder, stack, until
        self._file, self.workers = folder / "scheduler.json", list[subprocess.Popen[bytes]]()
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(self._file))
        until(lambda: self._file.is_file() and self._file.read_text(encoding="utf-8").rstrip().endswith("}"))
        self.address = json.loads(self._file.read_text(encoding="utf-8"))["address"]

    def start_worker(self, line: str = "pass", nanny: bool = False, env: dict[str, str] | None = None) -> None:
        """Start a worker that runs `line` before each chunk."""
        number = len(self.workers)
        preload = self.folder / f"preload-{number}.py"
        preload.write_text(PRELOAD.format(line=line, marker=str(self.folder / f"marker-{number}")), encoding="utf-8")
        words = ["--nthreads", "1", "--preload", str(preload), "--local-directory", str(self.folder)]
        kind = "--nanny" if nanny else "--no-nanny"
        self.workers.append(self._start("worker", self.address, *words, kind, env=env))

    def marker(self, number: int) -> Path:
        return self.folder / f"marker-{number}"

    def wait(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)

    def _start(self, kind: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", f"distributed.cli.dask_{kind}", *words, "--host", "127.0.0.1"]
        log = self._stack.enter_context((self.folder / f"{kind}-{len(self.workers)}.log").open("wb"))
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", **(env or {})}
        process = subprocess.Popen([*command, "--no-dashboard"], stdout=log, stderr=log, env=environment)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@contextmanager
def running(folder: Path, until, lines: Sequence[str], nanny: bool = False) -> Iterator[RunningCluster]:
    pytest.importorskip("distributed")
    folder.mkdir()
    with ExitStack() as stack:
        found = RunningCluster(folder, stack, until)
        for line in lines:
            found.start_worker(line, nanny)
        if lines:
            found.wait(len(lines))
        yield found


@pytest.fixture
def segmenter(tmp_path) -> Path:
    """A model whose class of a pixel is its strongest color."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["image"], ["classes"], axis=3, keepdims=0)],
        "segmenter",
        [helper.make_tensor_value_info("image", kind.FLOAT, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("classes", kind.INT64, [1, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "segmenter.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "segmenter.onnx"


@pytest.fixture
def labeled(tmp_path) -> Path:
    """Pictures with masks that agree with their strongest colors in about half of the pixels."""
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(3)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(COUNT):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        mask = np.where(random.random((8, 8)) < 0.5, pixels.argmax(axis=2), 0).astype(np.uint8)
        image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{number:02}.png")
        image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number:02}.png")
    return tmp_path / "data"


def figures(model: Path, data: Path, cluster: str | None = None, **options: object) -> object:
    """Everything that an evaluation gives but the latency."""
    given = EvaluateOptions(hints=HINTS, cluster=cluster, **options)
    report = edge.evaluate([model, model], data, given)
    return replace(report, models=[replace(one, median_ms=0.0) for one in report.models])


def test_four_workers_one_killed_and_one_slow_give_the_figures_of_this_machine(tmp_path, segmenter, labeled, until):
    here = figures(segmenter, labeled)
    assert 0 < here.models[0].metrics["miou"] < 1
    with running(tmp_path / "cluster", until, ["pass", SLOW, DIES_ONCE, "pass"]) as cluster:
        assert figures(segmenter, labeled, cluster.address) == here
        assert cluster.workers[2].wait(120) != 0
        assert cluster.marker(2).is_file()


def test_a_worker_is_replaced_and_the_journal_holds_each_input_once(tmp_path, segmenter, labeled, until):
    """The only worker dies in its first chunk; its nanny starts another one."""
    here, journal = figures(segmenter, labeled), tmp_path / "journal"
    with running(tmp_path / "cluster", until, [DIES_ONCE], nanny=True) as cluster:
        assert figures(segmenter, labeled, cluster.address, journal=journal) == here
        assert cluster.marker(0).is_file()
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted(row[1] for row in rows) == sorted(str(one) for one in (labeled / "images").iterdir())


def test_the_files_of_a_model_are_written_once_on_each_worker(tmp_path, segmenter, labeled, until):
    with running(tmp_path / "cluster", until, [COUNTS]) as cluster:
        edge.evaluate(segmenter, labeled, EvaluateOptions(hints=HINTS, cluster=cluster.address))
        lines = cluster.marker(0).read_text(encoding="utf-8").splitlines()
        assert len(lines) > 3
        assert lines == ["1 True", *["1 False"] * (len(lines) - 1)]
        until(lambda: not list(cluster.folder.rglob("segmenter.onnx")))  # removed when the command has ended


def test_an_input_that_kills_every_worker_is_named(tmp_path, segmenter, labeled, until):
    words = r"2 workers died one after the other while they ran .*\.png"
    with running(tmp_path / "cluster", until, [DIES] * 3) as cluster, pytest.raises(WorkerCrashedError, match=words):
        figures(segmenter, labeled, cluster.address)


def test_an_engine_that_a_worker_lacks_is_named_with_the_worker(tmp_path, segmenter, labeled, until):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "onnxruntime.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    with running(tmp_path / "cluster", until, []) as cluster:
        cluster.start_worker(env={"PYTHONPATH": path})
        cluster.wait(1)
        with pytest.raises(EdgeError, match=r"onnxruntime.*, on the worker tcp://127"):
            figures(segmenter, labeled, cluster.address)


def test_pictures_and_masks_that_cannot_be_read_are_named_as_here(tmp_path, segmenter, labeled, until, caplog):
    (labeled / "images" / "07.png").write_bytes(b"no picture")
    with running(tmp_path / "cluster", until, ["pass"]) as cluster:
        assert figures(segmenter, labeled, cluster.address).unreadable == 1
        assert str(labeled / "images" / "07.png") in caplog.text
        pytest.importorskip("PIL.Image").new("L", (3, 3)).save(labeled / "masks" / "08.png")
        with pytest.raises(InputError) as there:
            figures(segmenter, labeled, cluster.address)
    with pytest.raises(InputError) as here:
        figures(segmenter, labeled)
    assert there.value.as_dict() == here.value.as_dict()
    assert str(labeled / "masks" / "08.png") in here.value.message


def test_other_versions_and_workers_without_edge_are_refused_before_anything_runs(tmp_path, segmenter, labeled, until):
    metadata = tmp_path / "other" / "edgeproof-9.9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: edgeproof\nVersion: 9.9\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    with running(tmp_path / "cluster", until, ["pass"]) as cluster:
        cluster.start_worker(env={"PYTHONPATH": path})
        cluster.wait(2)
        with pytest.raises(HostError, match=r"the worker tcp://.* has edge 9\.9; this machine has 0\.1\.0"):
            figures(segmenter, labeled, cluster.address)


@pytest.mark.parametrize("version", [None, "2020.1.0"])
def test_what_differs_is_named(version):
    from edge.evaluation.cluster import _check_versions

    same = {"edgeproof": edge.__version__, "distributed": "2026.8.0", "python": "3.11.7.final.0"}
    found = {"client": {"packages": same}, "scheduler": {"packages": {**same, "python": "3.11.9.final.0"}}}
    _check_versions({**found, "workers": {"tcp://10.0.0.1:9": {"packages": same}}})
    other = {**same, **({"edgeproof": None} if version is None else {"distributed": version})}
    words = "has no edge" if version is None else r"has distributed 2020\.1\.0; this machine has 2026\.8\.0"
    with pytest.raises(HostError, match=rf"the worker tcp://10.0.0.1:9 {words}"):
        _check_versions({**found, "workers": {"tcp://10.0.0.1:9": {"packages": other}}})
    with pytest.raises(HostError, match=f"the scheduler {words}"):
        _check_versions({"client": found["client"], "scheduler": {"packages": other}, "workers": {}})


def test_a_cluster_that_is_not_there(segmenter, labeled, monkeypatch):
    pytest.importorskip("distributed")
    from edge.evaluation import cluster

    monkeypatch.setattr(cluster, "_CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(HostError, match="no Dask scheduler answers at tcp://127"):
        figures(segmenter, labeled, f"tcp://127.0.0.1:{port}")


def test_a_scheduler_without_workers(tmp_path, segmenter, labeled, until, monkeypatch):
    pytest.importorskip("distributed")
    from edge.evaluation import cluster

    monkeypatch.setattr(cluster, "_CONNECT_S", 2.0)
    with running(tmp_path / "cluster", until, []) as found, pytest.raises(HostError, match="has no workers"):
        figures(segmenter, labeled, found.address)


@pytest.mark.parametrize("address", ["localhost:8786", "http://localhost:8786", "tcp://", "file:///tmp/x"])
def test_what_is_not_an_address(segmenter, labeled, address):
    pytest.importorskip("distributed")
    with pytest.raises(UsageError, match="is not the address of a Dask scheduler"):
        figures(segmenter, labeled, address)


def test_without_dask_the_message_names_its_extra(capsys, segmenter, labeled, monkeypatch):
    from edge.evaluation import cluster

    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    words = ["--data", str(labeled), "--mean", "0", "--scale", "1", "--task", "segmentation"]
    assert main(["evaluate", str(segmenter), *words, "--cluster", "tcp://a:1"]) == EngineMissingError.exit_code
    assert "pip install 'edgeproof[cluster]'" in capsys.readouterr().err


def test_the_end_of_the_scheduler_is_an_error(tmp_path, segmenter, labeled, until, monkeypatch):
    pytest.importorskip("distributed")
    from edge.evaluation import cluster

    monkeypatch.setattr(cluster, "_WORKER_TIMEOUT_S", 1.0)
    ended = []

    def end(event) -> None:
        if event.done and not ended:
            ended.append(True)
            found.scheduler.kill()

    with running(tmp_path / "cluster", until, [SLOW]) as found:
        options = EvaluateOptions(hints=HINTS, cluster=found.address)
        with pytest.raises(HostError, match=r"the cluster at .* is lost"):
            edge.evaluate(segmenter, labeled, options, on_progress=end)
