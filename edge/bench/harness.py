"""Measure setups: interleaved over rounds, each measurement in a process of its own, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.workers import HERE, Crashed, OutOfMemory, Place, TimedOut, run_job
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, EngineError, EngineMissing, HostError, InputError, RefusedError, UsageError

OnProgress = Callable[["Setup", int, str], None]

# What a row says of a setup that could not be measured; the first kind that fits, so the narrower ones stand first.
_STATUS: tuple[tuple[type[EdgeError], str], ...] = (
    (TimedOut, "timeout"),
    (OutOfMemory, "out of memory"),
    (Crashed, "crashed"),
    (EngineMissing, "engine missing"),
    (EngineError, "engine failed"),
    (InputError, "unreadable"),
    (RefusedError, "unsupported"),
    (UsageError, "unsupported"),
    (HostError, "host failed"),
)
_BUILD_S = 3600.0  # a Jetson Nano takes many minutes for a large network


@dataclass(frozen=True)
class Setup:
    """What is measured, and how.

    id           tells the setups of a run apart, and finds its like in an older run
    title        for people
    artifact     folder or model file
    runtime      engine id; None takes the preferred one of the format
    options      {"threads", "device", "settings"}, as `runtimes.worker` takes them
    protocol     {"name": "steady" | "published", …}, as `runtimes.protocols` takes it
    inputs       .npz of stacked inputs, of which the first is fed; None feeds the artifact's self-check, else synthetic
    input_kind   what `inputs` are: "picture" or "arrays"
    evaluate     .npz of stacked inputs to run after the timed loop of the first round, or None
    outputs      where their real outputs go (.npz)
    host         the board that it is measured on, as ssh knows it; None is this machine
    """

    id: str
    title: str
    artifact: Path
    runtime: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=lambda: {"name": "steady"})
    inputs: Path | None = None
    input_kind: str = "arrays"
    evaluate: Path | None = None
    outputs: Path | None = None
    host: str | None = None

    def job(self, round_number: int) -> dict[str, Any]:
        """The job "measure" of `runtimes.worker` for one round, counted from 0."""
        job: dict[str, Any] = {
            "job": "measure",
            "artifact": str(self.artifact),
            "runtime": self.runtime,
            "options": dict(self.options),
            "protocol": dict(self.protocol),
        }
        if self.inputs is not None:
            job |= {"inputs": str(self.inputs), "input_kind": self.input_kind}
        if self.evaluate is not None and self.outputs is not None and round_number == 0:
            job |= {"evaluate": str(self.evaluate), "outputs": str(self.outputs)}
        return job


@dataclass(frozen=True)
class Measurement:
    """One setup in one round; `values` is the worker's answer (see `runtimes.measure`), or how it failed:
    {"status", "error", "message", "hint"}, and then perhaps the samples that it had taken until then.
    """

    setup: Setup
    round: int
    values: Mapping[str, Any]

    @property
    def is_ok(self) -> bool:
        """Whether there is a measurement."""
        return bool(self.values["status"] == "ok")


def measure_all(
    setups: Sequence[Setup],
    rounds: int = 2,
    timeout_s: float | None = 300.0,
    on_progress: OnProgress | None = None,
    module: str = "runtimes.worker",
    place: Place = HERE,
) -> Iterator[Measurement]:
    """Measure every setup once a round, at `place`, and yield each measurement as soon as it is there.

    Every other round goes backwards, so that a machine which slowly heats up treats all setups alike. A setup that
    fails is not tried again in later rounds. Whoever iterates keeps what is finished when Ctrl+C ends the rest; the
    worker is gone by then. `on_progress(setup, round, phase)` hears of each phase.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}", "ask for 1 round or more")
    failed: set[str] = set()
    for number in range(rounds):
        for setup in setups if number % 2 == 0 else reversed(setups):
            if setup.id in failed:
                continue
            measurement = Measurement(setup, number, _measured(setup, number, timeout_s, on_progress, module, place))
            if not measurement.is_ok:
                failed.add(setup.id)
            yield measurement


def _measured(
    setup: Setup, number: int, timeout_s: float | None, on_progress: OnProgress | None, module: str, place: Place
) -> Mapping[str, Any]:
    ahead: list[float] = []  # by how much this machine's clock is ahead of the worker's, which may be a board's

    def hear(progress: Mapping[str, Any]) -> None:
        if "at" in progress:
            ahead.append(time.time() - float(progress["at"]))
        if on_progress is not None:
            on_progress(setup, number, str(progress.get("phase", "")))

    job = setup.job(number)
    try:
        if number == 0 and _is_built(setup):
            # In a process and a time of its own, so that `timeout_s` stays what a measurement may take.
            run_job(_opening(job), module=module, timeout_s=_BUILD_S, on_progress=hear, place=place)
        answer = run_job(job, module=module, timeout_s=timeout_s, on_progress=hear, place=place)
        here = {"artifact": str(setup.artifact), "began_at": _by_our_clock(answer.get("began_at"), ahead)}
        return {**answer, **here}  # as it is called here, not on a board
    except EdgeError as error:
        kept = place.kept(job)
        if "began_at" in kept:
            kept = {**kept, "began_at": _by_our_clock(kept["began_at"], ahead)}
        return kept if kept.get("status") == "ok" else {**failure(error), **kept}


def _is_built(setup: Setup) -> bool:
    """Whether whoever measures builds an engine first, and keeps it: TensorRT's, from an artifact."""
    artifact = Artifact.open(setup.artifact)
    return artifact.manifest.format == "tensorrt" and not artifact.is_bare


def _opening(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job that opens the model and does nothing more."""
    return {**{key: job[key] for key in ("artifact", "runtime", "options")}, "job": "describe"}


def _by_our_clock(moment: float | None, ahead: Sequence[float]) -> float | None:
    """A moment by the worker's clock; its messages take a while to come, so that the smallest lead is the truest."""
    return moment if moment is None or not ahead else moment + min(ahead)


def failure(error: EdgeError) -> dict[str, Any]:
    """An error as the values of a measurement: {"status", "error", "message", "hint"}."""
    status = next((word for kind, word in _STATUS if isinstance(error, kind)), "failed")
    return {"status": status, **error.as_dict()}
