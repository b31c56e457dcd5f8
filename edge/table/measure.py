"""Measure the table's setups on this machine: interleaved, the published protocol, one process each."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_profiles.published import published_rows
from edge.accelerators import known_accelerators
from edge.bench.energy import metered
from edge.bench.harness import Measurement, OnProgress, Setup, measure_all
from edge.bench.rows import rows_of
from edge.progress import Progress
from edge.table.answers import Agreement, Answered, agreements
from edge.table.beside import Likeness, beside_this_machine
from edge.table.bundle import Bundle
from edge.table.notes import notes_of
from edge.table.recipes import BY_ID
from edge.table.rows import Row, absent, of_setup, published
from edge.table.setups import Absent, TableSetup, absent_devices, setups_for, setups_of_board
from runtimes import host, registry
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, EngineError, HostError, UsageError, from_dict
from runtimes.tensors import pixels_to_input
from runtimes.worker import save_arrays

# The published protocol.
_RUNS, _ROUNDS = 250, 2
# An emulator takes seconds for an inference in float: it is asked for answers, and for few of them.
_EMULATED_RUNS, _EMULATED_PICTURES = 2, 2


@dataclass(frozen=True)
class Plan:
    """How to measure: loops of `runs` classifications, `rounds` times; None is as many as the machine deserves."""

    runs: int | None = None
    rounds: int | None = None
    timeout_s: float = 600.0
    quiet: bool = False
    offline: bool = False  # boards are given their engines from here
    meter: Path | None = None  # the file of a meter in the supply line, see `edge.bench.energy`

    def runs_of(self, setup: TableSetup) -> int:
        """How many classifications are in a loop of this setup."""
        return self.runs or (_EMULATED_RUNS if setup.emulated else _RUNS)

    def rounds_of(self, setups: Sequence[TableSetup]) -> int:
        """How many loops each of these setups gets."""
        return self.rounds or (1 if all(setup.emulated for setup in setups) else _ROUNDS)


@dataclass(frozen=True)
class MeasuredTable:
    """The rows in order, the lines below them, and whether Ctrl+C ended it early."""

    rows: list[Row]
    notes: list[str]
    stopped: bool

    @property
    def exit_code(self) -> int:
        """0 where anything was measured, else how the first setup failed, else that of an engine or model missing."""
        kinds = {row.kind for row in self.rows}
        if "measured" in kinds:
            return 0
        failed = next((dict(row.data) for row in self.rows if row.kind == "failed"), None)
        return EngineError.exit_code if failed is None else from_dict(failed).exit_code


def this_machine() -> tuple[list[TableSetup], list[Absent]]:
    """The setups that this machine can run, engines permitting, and the accelerators that it lacks."""
    machine = host.facts()
    attached = {one.id for one in known_accelerators(machine) if one.found}
    return setups_for(machine, attached), absent_devices(machine, attached)


def boards(hosts: Sequence[str]) -> tuple[list[TableSetup], list[Absent]]:
    """The same of boards. One that cannot be looked at is a row that says why; HostError where none can."""
    from edge.remote.look import look

    found: tuple[list[TableSetup], list[Absent]] = ([], [])
    lost: list[HostError] = []
    for name in hosts:
        try:
            machine = look(name)["machine"]
        except HostError as error:
            lost.append(error)
            found[1].append(Absent(f"@{name}", name, f"a board that answers: {error.message}"))
            continue
        attached = {one.id for one in known_accelerators(machine) if one.found}
        found[0].extend(setups_of_board(name, machine, attached))
        found[1].extend(absent_devices(machine, attached, name))
    if lost and len(lost) == len(hosts):
        raise lost[-1]
    return found


def make_table(
    bundle: Bundle, setups: Sequence[TableSetup], plan: Plan, out_of_reach: Sequence[Absent] = ()
) -> MeasuredTable:
    """Measure `setups` as `plan` says, on the artifacts of `bundle`, and put the rows beside the published ones."""
    ready, unready = _split(setups, bundle)
    scratch = Path(tempfile.mkdtemp(prefix="edge-table-"))
    try:
        inputs = _Inputs(bundle, scratch)
        jobs = [inputs.job(setup, plan) for setup in ready]
        measurements, stopped = _measure(jobs, plan.rounds_of(ready), plan)
        found = {row["setup"]: row for row in rows_of(metered(measurements, plan.meter))}
        answered = {setup.id: inputs.answered(setup) for setup in ready}
        agreed = agreements(answered, bundle.pictures)
        alike: dict[str, Likeness] = {}
        with suppress(KeyboardInterrupt):  # what was measured is shown all the same
            alike = {} if stopped else beside_this_machine({job.id: job for job in jobs}, plan.timeout_s, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    here = [_row(setup, found[setup.id], agreed, alike, bundle) for setup in ready if setup.id in found]
    rows = [*map(published, published_rows()), *here, *map(absent, [*unready, *out_of_reach])]
    return MeasuredTable(rows, notes_of(rows, bundle, agreed, alike), stopped)


def _row(
    setup: TableSetup,
    measured: dict[str, Any],
    agreed: dict[str, Agreement],
    alike: dict[str, Likeness],
    bundle: Bundle,
) -> Row:
    agreement, likeness = agreed.get(setup.id), alike.get(setup.id)
    told = {
        **measured,
        "agreement": agreement.as_dict() if agreement else None,
        "beside_here": likeness.as_dict() if likeness else None,
    }
    return of_setup(setup, told, bundle.trained)


def choose(setups: Sequence[TableSetup], only: Collection[str] | None) -> list[TableSetup]:
    """The usual ones of these setups, or those named; a name stands for all boards and thread counts of its setup."""
    if not only:
        return [setup for setup in setups if setup.default]
    unknown = [name for name in only if not any(_named(setup, name) for setup in setups)]
    if unknown:
        raise UsageError(f"this machine has no setup '{unknown[0]}'", "`edge table --list` names them")
    return [setup for setup in setups if any(_named(setup, name) for name in only)]


def _named(setup: TableSetup, name: str) -> bool:
    own = setup.id.partition("@")[0]
    return name in (setup.id, own, own.rsplit("-", 1)[0])


def _split(setups: Sequence[TableSetup], bundle: Bundle) -> tuple[list[TableSetup], list[Absent]]:
    """Those that can be measured, and for the others what they need: an engine, or a model that was not made."""
    ready, unready = [], []
    for setup in setups:
        title = setup.full_title
        if setup.host is None and not registry.is_installed(registry.runtime(setup.runtime)):
            unready.append(Absent(setup.id, title, _install(setup.runtime)))
        elif not bundle.has(setup.artifact):
            unready.append(Absent(setup.id, title, f"the model {setup.artifact} (see below)", setup.artifact))
        else:
            ready.append(setup)
    return ready, unready


def _install(runtime: str) -> str:
    return f"{runtime}: {registry.install_hint(runtime)}"


def _measure(jobs: Sequence[Setup], rounds: int, plan: Plan) -> tuple[list[Measurement], bool]:
    """All measurements; what is finished is kept when Ctrl+C ends the rest."""
    done: list[Measurement] = []
    with Progress(len(jobs) * rounds, "measuring", quiet=plan.quiet) as bar:

        def hear(setup: Setup, number: int, phase: str) -> None:
            bar.note(f"{setup.title}, round {number + 1}: {phase}")

        try:
            for measurement in _measurements(jobs, rounds, plan, hear):
                done.append(measurement)
                bar.advance(measurement.setup.title)
        except KeyboardInterrupt:
            return done, True
    return done, False


def _measurements(jobs: Sequence[Setup], rounds: int, plan: Plan, hear: OnProgress) -> Iterator[Measurement]:
    hosts = list(dict.fromkeys(job.host for job in jobs if job.host))
    if not hosts:
        return measure_all(jobs, rounds, plan.timeout_s, hear)
    from edge.remote.jobs import boards_of, measure_on
    from edge.remote.kept import save

    by_host = {name: [job for job in jobs if job.host == name] for name in hosts}
    return measure_on(boards_of(by_host, plan.offline, hear), by_host, rounds, plan.timeout_s, hear, save)


class _Inputs:
    """The pictures as each artifact takes them; one file for all artifacts that take them alike."""

    def __init__(self, bundle: Bundle, scratch: Path) -> None:
        self._bundle, self._scratch = bundle, scratch
        self._pictures = bundle.pictures
        self._files: dict[object, tuple[Path, Path | None]] = {}

    def answered(self, setup: TableSetup) -> Answered:
        """Where the answers of a measured setup lie."""
        artifact = self._bundle.artifact(setup.artifact)
        return Answered(self._outputs(setup), artifact, BY_ID[setup.artifact].has_own_weights)

    def job(self, setup: TableSetup, plan: Plan) -> Setup:
        """What the harness measures for a setup."""
        artifact = self._bundle.artifact(setup.artifact)
        timed, evaluated = self._fed(artifact, _EMULATED_PICTURES if setup.emulated else None)
        return Setup(
            id=setup.id,
            title=setup.full_title if setup.host else setup.title,
            artifact=artifact.path,
            host=setup.host,
            runtime=setup.runtime,
            options={"threads": setup.threads, "device": setup.device, "settings": dict(setup.settings)},
            protocol={"name": "published", "runs": plan.runs_of(setup)},
            inputs=timed,
            input_kind="picture",
            evaluate=evaluated,
            outputs=self._outputs(setup) if evaluated else None,
        )

    def _outputs(self, setup: TableSetup) -> Path:
        return self._scratch / f"outputs-{re.sub(r'[^-.@a-zA-Z0-9]', '_', setup.id)}.npz"

    def _fed(self, artifact: Artifact, most: int | None) -> tuple[Path, Path | None]:
        """The timed picture, and those to be judged by: `most` of them, or all."""
        key = (artifact.manifest.inputs, artifact.manifest.preprocess, most)
        if key not in self._files:
            judged = self._pictures.evaluation
            self._files[key] = (
                self._write(artifact, self._pictures.benchmark),
                None if judged is None else self._write(artifact, judged[:most]),
            )
        return self._files[key]

    def _write(self, artifact: Artifact, pixels: Array) -> Path:
        spec, chosen = artifact.manifest.inputs[0], artifact.manifest.preprocess
        if chosen is None:
            raise EdgeError(f"{artifact.path} does not say how it takes a picture", "prepare the table again")
        path = self._scratch / f"inputs-{len(list(self._scratch.iterdir()))}.npz"
        save_arrays(path, {spec.name: np.stack([pixels_to_input(picture, spec, chosen) for picture in pixels])})
        return path
