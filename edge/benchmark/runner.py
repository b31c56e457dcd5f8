"""Run a benchmark from models to a report: setups, measurements, rows, findings, and a comparison with an older run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from edge.benchmark.bill import check_bill
from edge.benchmark.compare import (
    MAX_ROUNDS,
    ROUNDS_AGAINST_FILE,
    SLOWER,
    Comparison,
    compare,
    compare_in_turn,
    confidence_at,
    is_decided,
    list_unmatched,
)
from edge.benchmark.energy import add_energy, check_meter
from edge.benchmark.harness import BROWSER_WORKER, ENGINE_WORKER, IsDecided, Measurement, Setup, measure_all, short_name
from edge.benchmark.harness import OnProgress as OnPhase
from edge.benchmark.language_model import LlmBenchOptions, text_rows, text_setups, with_bill
from edge.benchmark.ranking import Rank, rank_setups
from edge.benchmark.report import documents
from edge.benchmark.rows import Row, read_rows, rows_of
from edge.benchmark.warnings import Finding, findings
from edge.console.progress import OnProgress, ProgressEvent
from edge.inference.images import load_pixels
from edge.inference.prepared_model import EngineChoice, prepare
from edge.inference.preprocessing import ModelHints, PreprocessOptions
from edge.workers.process import Worker
from runtimes.arrays import save_arrays
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.jobs import EngineOptions
from runtimes.measurement.protocols import as_dict, protocol_from_dict
from runtimes.model_files.detect import is_language_model
from runtimes.registry import PREFERRED, for_format, tensor_engine
from runtimes.tensors import pixels_to_input

_log = logging.getLogger(__name__)
_ROUNDS = 2
BROWSER = "browser"  # the word for `on` that measures in a browser of this machine


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How models are measured.

    protocol: "steady", which runs until the median is known to ±1 %, or "published": 1 warm-up, 1 s pause, 250 runs.
    runs: The number of runs of the published protocol.
    seconds: The time limit of the steady protocol.
    runtime: The engine; None selects the preferred engine of each format.
    threads: One setup for each number of threads; empty leaves the choice to the engine.
    device: The engine's name for the device to run on.
    settings: Engine-specific settings.
    rounds: Processes for each setup, interleaved; None is 2, with a file to compare with 5, and with a baseline as many
        as it takes to tell, at least 5 and at most 20.
    input: A picture, or an .npz of stacked inputs; None uses the self-check's inputs, else random numbers.
    shapes: Sizes for free axes, such as "x=1x3x480x640"; the input is then random numbers.
    preprocess: How a picture becomes a bare model's input.
    on: Boards to measure on, over ssh, or "browser", for a browser of this machine; empty is this machine. The setting
        `browser` names the program.
    offline: Copy the engines from this machine to the boards.
    energy_csv: The file that a power meter writes during the measurement, see `edge.benchmark.energy`.
    timeout_s: The time limit of one process, in seconds.
    profile: Whether each setup is run once more with the engine's profiler.
    batches: One setup for each size of the leading axis; empty leaves it.
    streams: Sessions that run side by side to measure throughput: 0 for one on each core, None for none.
    """

    protocol: str = "steady"
    runs: int | None = None
    seconds: float | None = None
    runtime: str | None = None
    threads: tuple[int, ...] = ()
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    rounds: int | None = None
    input: Path | None = None
    shapes: tuple[str, ...] = ()
    preprocess: PreprocessOptions = field(default_factory=PreprocessOptions)
    on: tuple[str, ...] = ()
    offline: bool = False
    energy_csv: Path | None = None
    timeout_s: float = 600.0
    profile: bool = False
    batches: tuple[int, ...] = ()
    streams: int | None = None


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """The results of a benchmark.

    rows: One per setup; the row of a setup that failed contains the error.
    findings: Reasons to doubt the results, with remedies.
    comparisons: Comparisons with the rows of an older run, or with a baseline.
    ranking: The setups by speed, fastest first.
    unmatched: Setups that the older run does not contain.
    measured: The number of complete measurements.
    was_stopped: Whether the run was stopped with Ctrl+C.
    """

    rows: Sequence[Row]
    findings: Sequence[Finding]
    comparisons: Sequence[Comparison] = ()
    ranking: Sequence[Rank] = ()
    unmatched: Sequence[str] = ()
    measured: int = 0
    was_stopped: bool = False

    def to_json(self) -> list[JsonObject]:
        """Return the objects that `edge bench --json` prints."""
        return documents(self.rows, self.findings, self.comparisons, self.ranking)

    def slower_than(self, share: float) -> list[Comparison]:
        """Return the comparisons whose setup is slower than its baseline by more than `share` (0.05 is 5 %)."""
        slower = [one for one in self.comparisons if one.verdict == SLOWER]
        return [one for one in slower if one.ratio is not None and one.ratio.value > 1 + share]


def are_language_models(models: Sequence[Path]) -> bool:
    """Return whether all models are language models. Raises UsageError if only some are."""
    formats = {Artifact.open(path).manifest.format for path in models}
    kinds = {is_language_model(one) for one in formats}
    if len(kinds) > 1:
        raise UsageError("language models and other models cannot be measured together", "use two commands")
    return True in kinds


def run_benchmark(
    models: Sequence[Path], options: BenchOptions, older: Path | None, on_progress: OnProgress
) -> BenchReport:
    """Measure tensor models and compare them with `older`.

    older: A baseline (an artifact or a model file), which is measured again, in turn with each setup; or the output
        of an earlier `edge bench --json`.
    """
    baseline = older if older is not None and is_model(older) else None
    old = read_rows(older) if older and baseline is None else []
    if options.energy_csv:
        check_meter(options.energy_csv, options.on)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        setups, baselines = _with_baselines(models, baseline, options, Path(folder))
        measurements, was_stopped = _measure(setups, _rounds(options, older, baseline), options, on_progress, baselines)
    rows = rows_of(add_energy(measurements, options.energy_csv))
    return BenchReport(
        rows=rows,
        findings=findings(rows),
        comparisons=compare(rows, old) if baseline is None else _compare(rows, baselines, options),
        ranking=rank_setups(rows),
        unmatched=list_unmatched(rows, old) if older and baseline is None else (),
        measured=len(measurements),
        was_stopped=was_stopped,
    )


def is_model(older: Path) -> bool:
    """Return whether the path is an artifact or a model file, not the JSON of an earlier run."""
    if older.is_dir() or older.suffix == ".json" or not older.is_file():
        return older.suffix != ".json"
    with older.open("rb") as stream:
        return not stream.read(64).lstrip().startswith((b"[", b"{"))


def _rounds(options: BenchOptions, older: Path | None, baseline: Path | None) -> int:
    if options.rounds is not None:
        return options.rounds
    if older is None:
        return _ROUNDS
    return ROUNDS_AGAINST_FILE if baseline is None else MAX_ROUNDS


def _compare(rows: Sequence[Row], baselines: Mapping[str, str], options: BenchOptions) -> list[Comparison]:
    if options.rounds is not None:
        return compare_in_turn(rows, baselines)
    # The rounds may have ended at different looks on different boards.
    rounds = {row.setup: len(row.rounds) for row in rows}
    return [
        comparison
        for setup, baseline in baselines.items()
        for comparison in compare_in_turn(rows, {setup: baseline}, confidence_at(rounds.get(setup, 0)))
    ]


def run_llm_benchmark(models: Sequence[Path], options: LlmBenchOptions, on_progress: OnProgress) -> BenchReport:
    """Measure language models."""
    local = BenchOptions(timeout_s=options.timeout_s)
    if options.bill is not None:
        check_bill(options.bill)
    setups = text_setups(models, options)
    measurements, was_stopped = _measure(setups, options.rounds, local, on_progress, {})
    rows = text_rows(measurements)
    if options.bill is not None:
        rows = [with_bill(row, options.bill) for row in rows]
    return BenchReport(rows=rows, findings=findings(rows), measured=len(measurements), was_stopped=was_stopped)


def _measure(
    setups: Sequence[Setup],
    rounds: int,
    options: BenchOptions,
    on_progress: OnProgress,
    baselines: Mapping[str, str],
) -> tuple[list[Measurement], bool]:
    """Return the complete measurements, and whether Ctrl+C stopped the rest.

    Unless the number of rounds is given, they end as soon as each setup differs from its baseline, or is equal to it.
    """
    done: list[Measurement] = []
    total = len(setups) * rounds

    def note(setup: Setup, number: int, phase: str) -> None:
        on_progress(ProgressEvent(text=f"{setup.title}, round {number + 1}: {phase}", done=len(done), total=total))

    enough: IsDecided | None = None
    if baselines and options.rounds is None:
        enough = partial(is_decided, baselines=baselines)
    try:
        for measurement in _measurements(setups, rounds, options, note, enough):
            done.append(measurement)
            text = f"{measurement.setup.title}: {measurement.values['status']}"
            on_progress(ProgressEvent(text=text, done=len(done), total=total))
    except KeyboardInterrupt:
        return done, True
    return done, False


def _measurements(
    setups: Sequence[Setup], rounds: int, options: BenchOptions, note: OnPhase, enough: IsDecided | None
) -> Iterator[Measurement]:
    if not options.on or options.on == (BROWSER,):
        return measure_all(setups, rounds, options.timeout_s, on_progress=note, is_decided=enough)
    if BROWSER in options.on:
        raise UsageError("a browser and boards cannot be measured in one run", "use two commands")
    from edge.remote.fleet import boards_of, distinct, measure_on

    by_host = {host: [setup for setup in setups if setup.host == host] for host in distinct(options.on)}
    boards = boards_of(by_host, options.offline, note)
    return measure_on(boards, by_host, rounds, options.timeout_s, on_progress=note, is_decided=enough)


def _with_baselines(
    models: Sequence[Path], baseline: Path | None, options: BenchOptions, folder: Path
) -> tuple[list[Setup], dict[str, str]]:
    """Return the setups, and for each setup of a model the id of the baseline's setup."""
    if baseline is None:
        return _setups(models, options, folder), {}
    if any(path.resolve() == baseline.resolve() for path in models):
        raise UsageError(f"{baseline} is compared with itself", "name the model as it was before, or another one")
    setups = _setups([*models, baseline], options, folder)
    each = len(setups) // (len(models) + 1)
    before = setups[-each:]
    return setups, {setup.id: before[place % each].id for place, setup in enumerate(setups[:-each])}


def _setups(models: Sequence[Path], options: BenchOptions, folder: Path) -> list[Setup]:
    protocol = _protocol(options)
    setups = []
    for place, path in enumerate(models):
        artifact = Artifact.open(path)
        inputs, kind = _inputs(options, artifact, folder / f"{place}.npz")
        for host, threads, batch in product(options.on or [None], options.threads or [None], options.batches or [None]):
            words = [*_words(short_name(path, models), threads, options), *([f"batch {batch}"] if batch else [])]
            title = ", ".join([host, *words] if host else words)
            choose = _engine if host is None else _engine_in_browser if host == BROWSER else _engine_on_board
            setups.append(
                Setup(
                    id=f"{title}, {choose(artifact, options.runtime)}",
                    title=title,
                    artifact=path,
                    runtime=options.runtime,
                    options=EngineOptions(threads, options.device, options.settings),
                    protocol=protocol,
                    inputs=inputs,
                    input_kind=kind,
                    host=host,
                    shapes=options.shapes,
                    profile=options.profile,
                    batch=batch,
                    streams=options.streams,
                    worker=BROWSER_WORKER if host == BROWSER else ENGINE_WORKER,
                )
            )
    return setups


def _protocol(options: BenchOptions) -> JsonObject:
    name = options.protocol
    for option, value, belongs in (("--runs", options.runs, "published"), ("--seconds", options.seconds, "steady")):
        if value is not None and name != belongs:
            raise UsageError(f"{option} does not apply to the protocol {name}", f"--protocol {belongs} has it")
    values = {"name": name, "runs": options.runs, "max_s": options.seconds}
    return as_dict(protocol_from_dict({key: value for key, value in values.items() if value is not None}))


def _words(name: str, threads: int | None, options: BenchOptions) -> Iterator[str]:
    yield name
    if threads is not None:
        yield f"{threads} thread{'s' * (threads > 1)}"
    if options.device != "cpu":
        yield options.device
    yield from (f"{key}={value}" for key, value in options.settings.items())
    yield from options.shapes


def _engine(artifact: Artifact, wanted: str | None) -> str:
    """Return the engine that the worker will use. Raises UsageError for an unknown engine."""
    try:
        return for_format(artifact.manifest.format, wanted).id
    except EngineMissingError:  # reported in the setup's row
        return wanted or PREFERRED[artifact.manifest.format]


def _engine_on_board(artifact: Artifact, wanted: str | None) -> str:
    """Return the engine that a board will use, which need not be installed here."""
    if wanted is None:
        return PREFERRED[artifact.manifest.format]
    adapter = tensor_engine(wanted)
    if artifact.manifest.format not in adapter.formats:
        hint = f"it opens: {', '.join(adapter.formats)}"
        raise UsageError(f"the engine '{wanted}' does not open the format '{artifact.manifest.format}'", hint)
    return adapter.id


def _engine_in_browser(artifact: Artifact, _wanted: str | None) -> str:
    """Return the engine of the artifact's page. Raises InputError for an artifact without one."""
    from edge.web.worker import engine_id

    return engine_id(artifact)


def _inputs(options: BenchOptions, artifact: Artifact, target: Path) -> tuple[Path | None, str]:
    """Return the .npz of inputs and its kind: "arrays", or "picture" for a picture, which is written to `target`.

    Returns None if the model's own inputs are used. Assumptions about a bare model are logged. Raises UsageError if the
    user must specify more; its hint names the options.
    """
    source = options.input
    if source is None:
        return None, ""
    if not source.is_file():
        raise InputError(f"{source} is not a file", "pass a picture, or an .npz of stacked inputs")
    if source.suffix == ".npz":
        return source, "arrays"
    manifest = _complete(artifact, options).manifest
    assert manifest.preprocess is not None
    tensor = pixels_to_input(load_pixels(source, manifest.preprocess), manifest.inputs[0], manifest.preprocess)
    save_arrays(target, {manifest.inputs[0].name: tensor[None]})
    return target, "picture"


def _complete(artifact: Artifact, options: BenchOptions) -> Artifact:
    """Return the artifact with preprocessing in its manifest."""
    manifest = artifact.manifest
    if manifest.preprocess is not None and manifest.inputs and options.preprocess == PreprocessOptions():
        return artifact
    with Worker() as worker:
        engine = EngineChoice(runtime=options.runtime, timeout_s=options.timeout_s)
        model = prepare(artifact, ModelHints(preprocess_options=options.preprocess), worker, engine)
    for line in model.assumptions:
        _log.info("assumed: %s", line)
    return model.artifact
