"""Measure the table's setups with the published protocol, interleaved, each in its own process."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_profiles.published import published_rows
from edge.benchmark.energy import add_energy
from edge.benchmark.harness import ENGINE_WORKER, Measurement, OnProgress, Setup, measure_all
from edge.benchmark.rows import rows_of
from edge.console.progress import ProgressBar
from edge.machine.accelerators import known_accelerators
from edge.table.agreement import AnswerFile, agreements
from edge.table.bundle import Bundle
from edge.table.compare_outputs import OutputDiff, compare_with_local
from edge.table.footnotes import notes_of
from edge.table.recipes import BY_ID
from edge.table.rows import TableRow, row_of_absent, row_of_published, row_of_setup
from edge.table.setups import AbsentSetup, TableSetup, absent_devices, setups_for, setups_in_browser, setups_of_board
from edge.web.chromium import find_browser
from runtimes import host, registry
from runtimes.arrays import Array, save_arrays
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, EngineError, EngineMissingError, HostError, UsageError
from runtimes.jobs import EngineOptions
from runtimes.tensors import pixels_to_input

# The published protocol.
_RUNS, _ROUNDS = 250, 2
# An emulator takes seconds per float inference, so only a few predictions are made on it.
_EMULATED_RUNS, _EMULATED_PICTURES = 2, 2


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How to measure: loops of `runs` classifications, `rounds` times; None uses the default for the machine."""

    runs: int | None = None
    rounds: int | None = None
    timeout_s: float = 600.0
    quiet: bool = False
    offline: bool = False  # copy the engines from this machine to the boards
    meter: Path | None = None  # the file of a meter in the supply line, see `edge.benchmark.energy`

    def runs_of(self, setup: TableSetup) -> int:
        """Return the number of classifications in a loop of this setup."""
        return self.runs or (_EMULATED_RUNS if setup.emulated else _RUNS)

    def rounds_of(self, setups: Sequence[TableSetup]) -> int:
        """Return the number of rounds for these setups."""
        return self.rounds or (1 if all(setup.emulated for setup in setups) else _ROUNDS)


@dataclass(frozen=True, kw_only=True)
class MeasuredTable:
    """A measured table.

    rows: The rows in order.
    notes: The paragraphs below them.
    stopped: Whether Ctrl+C ended the measurement early.
    """

    rows: list[TableRow]
    notes: list[str]
    stopped: bool

    @property
    def exit_code(self) -> int:
        """Return 0 if anything was measured, else the code of the first failure, else that of a missing engine."""
        kinds = {row.kind for row in self.rows}
        if "measured" in kinds:
            return 0
        failed = next((row.measured for row in self.rows if row.kind == "failed" and row.measured), None)
        return EngineError.exit_code if failed is None else failed.exit_code


def this_machine() -> tuple[list[TableSetup], list[AbsentSetup]]:
    """Return the setups that this machine can run if the engines are installed, and the accelerators that it lacks."""
    machine = host.facts()
    attached = {one.id for one in known_accelerators(machine) if one.found}
    in_browser, no_browser = setups_in_browser(_browser())
    return [*setups_for(machine, attached), *in_browser], [*absent_devices(machine, attached), *no_browser]


def _browser() -> str | None:
    try:
        return find_browser()
    except EngineMissingError:
        return None


def boards(hosts: Sequence[str]) -> tuple[list[TableSetup], list[AbsentSetup]]:
    """Return the same for boards; one that cannot be reached is a row with the reason. Raises HostError if none can."""
    from edge.remote.facts import remote_facts

    setups: list[TableSetup] = []
    missing: list[AbsentSetup] = []
    unreachable: list[HostError] = []
    for name in hosts:
        try:
            machine = remote_facts(name)["machine"]
        except HostError as error:
            unreachable.append(error)
            missing.append(AbsentSetup(id=f"@{name}", title=name, needs=f"a board that answers: {error.message}"))
            continue
        attached = {one.id for one in known_accelerators(machine) if one.found}
        setups.extend(setups_of_board(name, machine, attached))
        missing.extend(absent_devices(machine, attached, name))
    if unreachable and len(unreachable) == len(hosts):
        raise unreachable[-1]
    return setups, missing


def make_table(
    bundle: Bundle, setups: Sequence[TableSetup], plan: TableOptions, out_of_reach: Sequence[AbsentSetup] = ()
) -> MeasuredTable:
    """Measure `setups` with the artifacts of `bundle`, and return the rows below the published ones."""
    ready, unready = _split(setups, bundle)
    scratch = Path(tempfile.mkdtemp(prefix="edge-table-"))
    try:
        inputs = _Inputs(bundle, scratch)
        jobs = [inputs.job(setup, plan) for setup in ready]
        measurements, stopped = _measure(jobs, plan.rounds_of(ready), plan)
        found = {row.setup: row for row in rows_of(add_energy(measurements, plan.meter))}
        answered = {setup.id: inputs.answer_file(setup) for setup in ready}
        agreed = agreements(answered, bundle.pictures)
        alike: dict[str, OutputDiff] = {}
        with suppress(KeyboardInterrupt):  # the measured rows are shown even if the comparison is stopped
            alike = {} if stopped else compare_with_local({job.id: job for job in jobs}, plan.timeout_s, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    here = [
        row_of_setup(setup, found[setup.id], bundle.trained, agreed.get(setup.id), alike.get(setup.id))
        for setup in ready
        if setup.id in found
    ]
    rows = [*map(row_of_published, published_rows()), *here, *map(row_of_absent, [*unready, *out_of_reach])]
    return MeasuredTable(rows=rows, notes=notes_of(rows, bundle, agreed, alike), stopped=stopped)


def choose(setups: Sequence[TableSetup], only: Collection[str] | None) -> list[TableSetup]:
    """Select the default setups, or those named; a name selects all boards and thread counts of its setup."""
    if not only:
        return [setup for setup in setups if setup.default]
    unknown = [name for name in only if not any(_is_named(setup, name) for setup in setups)]
    if unknown:
        raise UsageError(f"this machine has no setup '{unknown[0]}'", "`edge table --list` names them")
    return [setup for setup in setups if any(_is_named(setup, name) for name in only)]


def _is_named(setup: TableSetup, name: str) -> bool:
    own = setup.id.partition("@")[0]
    return name in (setup.id, own, own.rsplit("-", 1)[0])


def _split(setups: Sequence[TableSetup], bundle: Bundle) -> tuple[list[TableSetup], list[AbsentSetup]]:
    """Separate the setups that can be measured from those that lack an engine or a model."""
    ready, unready = [], []
    for setup in setups:
        title = setup.full_title
        runs_here = setup.host is None and setup.worker == ENGINE_WORKER
        if runs_here and not registry.is_installed(registry.tensor_engine(setup.runtime)):
            unready.append(AbsentSetup(id=setup.id, title=title, needs=_install(setup.runtime)))
        elif not bundle.has(setup.artifact):
            unready.append(
                AbsentSetup(
                    id=setup.id, title=title, needs=f"the model {setup.artifact} (see below)", model=setup.artifact
                )
            )
        else:
            ready.append(setup)
    return ready, unready


def _install(runtime: str) -> str:
    return f"{runtime}: {registry.install_hint(runtime)}"


def _measure(jobs: Sequence[Setup], rounds: int, plan: TableOptions) -> tuple[list[Measurement], bool]:
    """Return all measurements; the complete ones if Ctrl+C stops the rest."""
    done: list[Measurement] = []
    with ProgressBar(len(jobs) * rounds, "measuring", quiet=plan.quiet) as bar:

        def on_phase(setup: Setup, number: int, phase: str) -> None:
            bar.note(f"{setup.title}, round {number + 1}: {phase}")

        try:
            for measurement in _measurements(jobs, rounds, plan, on_phase):
                done.append(measurement)
                bar.advance(measurement.setup.title)
        except KeyboardInterrupt:
            return done, True
    return done, False


def _measurements(
    jobs: Sequence[Setup], rounds: int, plan: TableOptions, on_phase: OnProgress
) -> Iterator[Measurement]:
    hosts = list(dict.fromkeys(job.host for job in jobs if job.host))
    if not hosts:
        return measure_all(jobs, rounds, plan.timeout_s, on_progress=on_phase)
    from edge.remote.fleet import boards_of, measure_on
    from edge.remote.recovered_samples import save

    by_host = {name: [job for job in jobs if job.host == name] for name in hosts}
    fleet = boards_of(by_host, plan.offline, on_phase)
    return measure_on(fleet, by_host, rounds, plan.timeout_s, on_progress=on_phase, on_leftovers=save)


class _Inputs:
    """The input files of the setups; artifacts with the same inputs and preprocessing share a file."""

    def __init__(self, bundle: Bundle, scratch: Path) -> None:
        self._bundle, self._scratch = bundle, scratch
        self._pictures = bundle.pictures
        self._files: dict[object, tuple[Path, Path | None]] = {}

    def answer_file(self, setup: TableSetup) -> AnswerFile:
        """Return the file with the outputs of a measured setup."""
        artifact = self._bundle.artifact(setup.artifact)
        return AnswerFile(
            outputs=self._outputs(setup), artifact=artifact, own_weights=BY_ID[setup.artifact].has_own_weights
        )

    def job(self, setup: TableSetup, plan: TableOptions) -> Setup:
        """Return what the harness measures for a setup."""
        artifact = self._bundle.artifact(setup.artifact)
        timed, evaluated = self._input_files(artifact, _EMULATED_PICTURES if setup.emulated else None)
        return Setup(
            id=setup.id,
            title=setup.full_title if setup.host else setup.title,
            artifact=artifact.path,
            host=setup.host,
            runtime=setup.runtime,
            options=EngineOptions(setup.threads, setup.device, setup.settings),
            protocol={"name": "published", "runs": plan.runs_of(setup)},
            inputs=timed,
            input_kind="picture",
            evaluate=evaluated,
            outputs=self._outputs(setup) if evaluated else None,
            worker=setup.worker,
        )

    def _outputs(self, setup: TableSetup) -> Path:
        return self._scratch / f"outputs-{re.sub(r'[^-.@a-zA-Z0-9]', '_', setup.id)}.npz"

    def _input_files(self, artifact: Artifact, most: int | None) -> tuple[Path, Path | None]:
        """Return the files of the timed picture and of the evaluation pictures: the first `most`, or all."""
        key = (artifact.manifest.inputs, artifact.manifest.preprocess, most)
        if key not in self._files:
            evaluation = self._pictures.evaluation
            self._files[key] = (
                self._write(artifact, self._pictures.benchmark),
                None if evaluation is None else self._write(artifact, evaluation[:most]),
            )
        return self._files[key]

    def _write(self, artifact: Artifact, pixels: Array) -> Path:
        spec, chosen = artifact.manifest.inputs[0], artifact.manifest.preprocess
        if chosen is None:
            raise EdgeError(f"the manifest of {artifact.path} lacks preprocessing", "prepare the table again")
        path = self._scratch / f"inputs-{len(list(self._scratch.iterdir()))}.npz"
        save_arrays(path, {spec.name: np.stack([pixels_to_input(picture, spec, chosen) for picture in pixels])})
        return path
