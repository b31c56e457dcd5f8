"""Measure setups one at a time, each measurement in a new process, with the setups interleaved in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from edge.inspection import inspect
from edge.workers.process import Worker, run_job
from edge.workers.transport import LOCAL, Transport
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import (
    EdgeError,
    EngineError,
    EngineMissingError,
    HostError,
    InputError,
    RefusedError,
    UsageError,
    WorkerCrashedError,
    WorkerOutOfMemoryError,
    WorkerTimeoutError,
)
from runtimes.jobs import DescribeJob, EngineOptions, Job, MeasureJob, Progress
from runtimes.measurement.answer import MeasureAnswer
from runtimes.registry import distribution_version

OnProgress = Callable[["Setup", int, str], None]
# Called with all measurements of one machine after each round: True ends the rounds there.
IsDecided = Callable[[Sequence["Measurement"]], bool]

# The status of a setup that could not be measured; the first matching class counts, so subclasses come first.
_STATUS: tuple[tuple[type[EdgeError], str], ...] = (
    (WorkerTimeoutError, "timeout"),
    (WorkerOutOfMemoryError, "out of memory"),
    (WorkerCrashedError, "crashed"),
    (EngineMissingError, "engine missing"),
    (EngineError, "engine failed"),
    (InputError, "unreadable"),
    (RefusedError, "unsupported"),
    (UsageError, "unsupported"),
    (HostError, "host failed"),
)
ENGINE_WORKER, BROWSER_WORKER = "runtimes.worker", "edge.web.worker"
Stamp = tuple[tuple[Path, int, int], ...]  # path, size and time of each file
_BUILD_S = 3600.0  # a Jetson Nano takes many minutes for a large network


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured, and how.

    id: Identifies the setup within a run, and matches it with the same setup in an older run.
    title: Its name for people.
    artifact: An artifact's folder or a model file.
    runtime: The engine's id; None selects the preferred engine of the format.
    options: The engine's threads, device and settings.
    protocol: {"name": "steady" | "published", …}, as in `runtimes.measurement.protocols`.
    inputs: An .npz of stacked inputs, of which the first is used; None uses the artifact's self-check inputs, else
        synthetic ones.
    input_kind: What `inputs` contains: "picture" or "arrays".
    evaluate: An .npz of stacked inputs to run after the timed loop of the first round, or None.
    outputs: The .npz that their dequantized outputs are written to.
    host: The board to measure on, as ssh knows it; None is this machine.
    shapes: Sizes for free axes, see `runtimes.shapes`.
    worker: The module of the process that measures it.
    profile: Whether the first round ends with a run of the engine's profiler.
    batch: The size of the leading axis of every input; None leaves it.
    streams: How many sessions run side by side at the end of the first round; 0 for one on each core, None for none.
    """

    id: str
    title: str
    artifact: Path
    runtime: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    protocol: Mapping[str, JsonValue] = field(default_factory=lambda: {"name": "steady"})
    inputs: Path | None = None
    input_kind: str = "arrays"
    evaluate: Path | None = None
    outputs: Path | None = None
    host: str | None = None
    shapes: Sequence[str] = ()
    worker: str = ENGINE_WORKER
    profile: bool = False
    batch: int | None = None
    streams: int | None = None

    def job(self, round_number: int) -> Job[MeasureAnswer]:
        """Return the job of one round; rounds count from 0."""
        is_evaluated = self.evaluate is not None and self.outputs is not None and round_number == 0
        return MeasureJob(
            artifact=str(self.artifact),
            runtime=self.runtime,
            options=self.options,
            protocol=self.protocol,
            inputs=str(self.inputs) if self.inputs is not None else None,
            input_kind=self.input_kind,
            evaluate=str(self.evaluate) if is_evaluated else None,
            outputs=str(self.outputs) if is_evaluated else None,
            shapes=tuple(self.shapes),
            profile=self.profile and round_number == 0,
            batch=self.batch,
            streams=self.streams if round_number == 0 else None,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One setup in one round.

    `values` is the worker's answer (see `runtimes.measurement.tensor_model`). If the measurement failed, it is
    {"status", "error", "message", "hint"}, with the samples taken before the failure if there are any.
    """

    setup: Setup
    round: int
    values: MeasureAnswer

    @property
    def is_ok(self) -> bool:
        """Whether the measurement succeeded."""
        return bool(self.values["status"] == "ok")


def measure_all(
    setups: Sequence[Setup],
    rounds: int = 2,
    timeout_s: float | None = 300.0,
    *,
    on_progress: OnProgress | None = None,
    place: Transport = LOCAL,
    is_decided: IsDecided | None = None,
    worker: Worker | None = None,
) -> Iterator[Measurement]:
    """Measure every setup once per round, at `place`, and yield each measurement as soon as it is available.

    Every second round runs in reverse order, so that a machine that slowly heats up affects all setups alike. A setup
    that fails is skipped in later rounds. Ctrl+C ends the worker and is passed on to the caller, who keeps what was
    yielded so far. `on_progress(setup, round, phase)` is called for each phase. `is_decided` may end the rounds early.
    `worker` takes all measurements in one process, for a first look; the measurements then affect each other.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}", "use 1 round or more")
    failed: set[str] = set()
    done: list[Measurement] = []
    digests: dict[str, str] = {}
    for number in range(rounds):
        for setup in setups if number % 2 == 0 else reversed(setups):
            if setup.id in failed:
                continue
            values = _measure(setup, number, timeout_s, on_progress, place, worker)
            digest = values.get("model_sha256", "")
            if digest and digests.setdefault(setup.id, digest) != digest:
                hint = "measure again when nothing writes the file"
                values = failure(InputError(f"{setup.artifact} has changed between two rounds", hint))
            measurement = Measurement(setup=setup, round=number, values=values)
            if not measurement.is_ok:
                failed.add(setup.id)
            done.append(measurement)
            yield measurement
        if is_decided is not None and is_decided(done):
            return


def _measure(
    setup: Setup,
    number: int,
    timeout_s: float | None,
    on_progress: OnProgress | None,
    place: Transport,
    worker: Worker | None,
) -> MeasureAnswer:
    ahead: list[float] = []  # how far this machine's clock is ahead of the worker's, which may run on a board

    def on_message(progress: Progress) -> None:
        if "at" in progress:
            ahead.append(time.time() - float(progress["at"]))
        if on_progress is not None:
            on_progress(setup, number, str(progress.get("phase", "")))

    job = setup.job(number)
    try:
        # In a browser the page checks the files: changed ones are what its proof has to find.
        digest = "" if setup.worker == BROWSER_WORKER else model_sha256(setup.artifact)
        if number == 0 and _is_built(setup):
            # In a separate process with its own limit, so that `timeout_s` applies to the measurement alone.
            run_job(_opening(setup), module=setup.worker, timeout_s=_BUILD_S, on_progress=on_message, place=place)
        run = worker.run if worker is not None else partial(run_job, module=setup.worker, place=place)
        answer = run(job, timeout_s=timeout_s, on_progress=on_message)
        began_at = _by_our_clock(answer.get("began_at"), ahead)
        # The path here, not on a board.
        answer = add_identity(setup.artifact, answer, digest or model_sha256(setup.artifact))
        return {**answer, "artifact": str(setup.artifact), "began_at": began_at}
    except EdgeError as error:
        kept = place.recovered(job)
        if "began_at" in kept:
            kept = {**kept, "began_at": _by_our_clock(kept["began_at"], ahead)}
        return kept if kept.get("status") == "ok" else {**failure(error), **kept}


def add_identity(path: Path, answer: MeasureAnswer, digest: str) -> MeasureAnswer:
    """Add what was measured, and by which edge. The precision of a bare file is read from the file."""
    known: MeasureAnswer = {"model_sha256": digest, "edge_version": distribution_version("edgeproof")}
    if answer.get("precision") == "unknown":
        known["precision"] = _precision(path, digest)
    return {**answer, **known}


@lru_cache(maxsize=64)
def _precision(path: Path, _digest_of_it: str) -> str:
    try:
        return inspect(Artifact.open(path)).precision
    except EdgeError:  # the engine has opened it; only our reader does not know it
        return "unknown"


def short_name(path: Path, paths: Sequence[Path]) -> str:
    """Return the name of the file or folder, or its whole path if another of `paths` has the same name."""
    name = path.resolve().name
    return name if sum(other.resolve().name == name for other in paths) == 1 else str(path)


def _is_built(setup: Setup) -> bool:
    """Return whether the measuring machine first builds and caches an engine: TensorRT, from an artifact."""
    artifact = Artifact.open(setup.artifact)
    return artifact.manifest.format == "tensorrt" and not artifact.is_bare


def _opening(setup: Setup) -> DescribeJob:
    """Return a job that only opens the model."""
    return DescribeJob(str(setup.artifact), setup.runtime, setup.options)


def _by_our_clock(moment: float | None, ahead: Sequence[float]) -> float | None:
    """Convert a time of the worker's clock to ours; messages arrive late, so the smallest difference is the best."""
    return moment if moment is None or not ahead else moment + min(ahead)


def failure(error: EdgeError) -> MeasureAnswer:
    """Convert an error to the values of a measurement: {"status", "error", "message", "hint"}."""
    status = next((word for kind, word in _STATUS if isinstance(error, kind)), "failed")
    return {"status": status, "error": error.branch, "message": error.message, "hint": error.hint}


def model_sha256(path: Path) -> str:
    """Return the sha256 of a model file, or the digest of names and contents if the model is several files.

    Raises InputError if a file of an artifact has changed since the artifact was written. Files are read once, as long
    as their sizes and times stay the same. The weights of a language model, which may take minutes to read on a board,
    are only read if no manifest has their digest.
    """
    artifact = Artifact.open(path)
    files = artifact.model_files()
    known = artifact.manifest.files
    if artifact.manifest.format == "gguf" and len(files) == 1 and artifact.manifest.model in known:
        return known[artifact.manifest.model]
    all_files = [*files, *(artifact.path / name for name in known)]
    if all(file.is_file() for file in all_files):
        return _digest(path, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in all_files))
    artifact.verify_digests()  # names the file that is missing
    return _digest(path, ())


@lru_cache(maxsize=64)
def _digest(path: Path, _stamp: Stamp) -> str:
    artifact = Artifact.open(path)
    artifact.verify_digests()
    return artifact.model_sha256()
