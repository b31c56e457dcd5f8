"""Evaluate models on labeled inputs, one after the other, and compare each with the first."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.console.progress import OnProgress, ProgressEvent
from edge.evaluation.cluster import Answer, Cluster, portable_files
from edge.evaluation.differences import Difference, compare_records
from edge.evaluation.journal import Journal
from edge.evaluation.labeled_inputs import LabeledInput, LabeledInputs, Names
from edge.evaluation.labeled_masks import read_masks
from edge.evaluation.labeled_objects import read_objects, read_poses
from edge.evaluation.labeled_pictures import read_pictures
from edge.evaluation.labeled_sounds_and_texts import read_sounds, read_texts
from edge.evaluation.report import EvaluatedModel, EvaluateReport
from edge.evaluation.scoring import ScoredInput, score
from edge.inference.inputs import InlineText
from edge.inference.model import Model
from edge.inference.prediction import Unreadable
from edge.inference.prepared_model import EngineChoice, PreparedModel
from edge.inference.preprocessing import ModelHints
from edge.tasks import Metrics, task_view
from runtimes.artifact import Artifact, sha256
from runtimes.errors import InputError, UsageError
from runtimes.measurement.statistics import median
from runtimes.shapes import shape_texts
from runtimes.task import DecodeOptions

_log = logging.getLogger(__name__)
# Task → the function that reads labeled data for a model of it.
_READERS: Mapping[str, Callable[[Path, Names], LabeledInputs]] = {
    "classification": read_pictures,
    "detection": read_objects,
    "instances": read_objects,
    "pose": read_poses,
    "segmentation": read_masks,
    "sound": read_sounds,
    "text": read_texts,
}
_NO_PICTURES = ("sound", "text")
_TOP = 5
# Detectors are judged by all their boxes, sorted by confidence: a threshold as for people would only cut that list.
CONFIDENCE = 0.001
_REPORTED = 10  # unreadable inputs are named up to here, then counted
_EVENTS = 20  # of progress for each model, at most


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How models are evaluated.

    hints: What a bare model file lacks: its task, preprocessing, labels.
    runtime: The engine's id; None selects the preferred engine of each format.
    threads: The number of threads; None leaves the choice to the engine.
    shapes: Sizes for free axes, as in `edge.open`.
    confidence: The lowest score of a detected object; None keeps nearly all.
    iou: Boxes of a class that overlap by more count as one object; None leaves it to the kind of detector.
    limit: Evaluate on at most this many of the inputs, evenly spaced; None takes all.
    cluster: The address of a Dask scheduler, such as "tcp://host:8786"; None runs the models on this machine.
    journal: A file that keeps each input's record; an evaluation that was stopped continues from it.
    timeout_s: The time limit for one job of the worker process, in seconds.
    """

    hints: ModelHints = field(default_factory=ModelHints)
    runtime: str | None = None
    threads: int | None = None
    shapes: tuple[str, ...] = ()
    confidence: float | None = None
    iou: float | None = None
    limit: int | None = None
    cluster: str | None = None
    journal: Path | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A model that is ready to be evaluated."""

    name: str
    model: Model
    prepared: PreparedModel
    engine: EngineChoice
    data: LabeledInputs
    key: str


@dataclass(frozen=True)
class _Answers:
    """What one model gave, by the input's name, and what could not be read."""

    scored: dict[str, ScoredInput] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


def run_evaluation(
    models: Sequence[Path], data: Path, options: EvaluateOptions, on_progress: OnProgress
) -> EvaluateReport:
    """Evaluate the models. Raises InputError if data and models do not fit, before any of them runs."""
    with ExitStack() as stack:
        candidates = [_candidate(path, data, options, stack) for path in models]
        tasks = list(dict.fromkeys(one.prepared.task.id for one in candidates))
        if len(tasks) > 1:
            raise UsageError(f"the models have different tasks: {', '.join(tasks)}", "evaluate them one by one")
        total = sum(len(one.data.inputs) for one in candidates)
        journal = stack.enter_context(Journal(options.journal))
        cluster = stack.enter_context(Cluster(options.cluster)) if options.cluster else None
        answers = []
        for place, one in enumerate(candidates):
            done = sum(len(before.data.inputs) for before in candidates[:place])
            answers.append(_answers(one, journal, cluster, on_progress, done, total))
            one.model.close()
    names: dict[int, str] = {}
    for one in reversed(candidates):  # the first model's names take precedence
        names |= {index: name for index, name in one.prepared.decoder.class_names().items() if name}
    return EvaluateReport(
        data=str(data),
        task=tasks[0],
        count=len(candidates[0].data.inputs),
        unreadable=max(len(one.unreadable) for one in answers),
        names=names,
        models=[
            _evaluate(one, found, answers[0].scored if place else None)
            for place, (one, found) in enumerate(zip(candidates, answers, strict=True))
        ],
    )


def _candidate(path: Path, data: Path, options: EvaluateOptions, stack: ExitStack) -> _Candidate:
    artifact = Artifact.open(path)
    confidence = CONFIDENCE if options.confidence is None else options.confidence
    decode = DecodeOptions(_TOP, confidence, options.iou)
    engine = EngineChoice(runtime=options.runtime, threads=options.threads, timeout_s=options.timeout_s)
    shapes = shape_texts(options.shapes)
    hints = options.hints
    if artifact.manifest.preprocess is not None:  # another format than that of the model that the layout is given for
        hints = replace(hints, preprocess_options=replace(hints.preprocess_options, layout=None))
    model = stack.enter_context(Model(artifact, hints, engine, decode, shapes=shapes))
    prepared = _prepare(model)
    labeled = read_labeled(prepared, data).spread(options.limit)
    return _Candidate(
        name=str(path),
        model=model,
        prepared=prepared,
        engine=engine,
        data=labeled,
        key=_key(artifact, prepared, labeled, options),
    )


def _prepare(model: Model) -> PreparedModel:
    """Determine the model's task first: only a model that takes pictures needs their preprocessing."""
    found = model.prepare(takes_pictures=False)
    return found if found.task.id in _NO_PICTURES else model.prepare(takes_pictures=True)


def read_labeled(prepared: PreparedModel, data: Path) -> LabeledInputs:
    """Read labeled inputs for a model. Raises UsageError for a task without metrics, and InputError."""
    if prepared.task.id not in _READERS:
        what = f"models of the task '{prepared.task.id}' cannot be evaluated"
        raise UsageError(what, f"tasks that can: {', '.join(_READERS)}; --task names another one")
    if not data.exists():
        raise InputError(f"{data} does not exist", "pass a folder or file of labeled inputs with --data")
    return _READERS[prepared.task.id](data, prepared.decoder.class_names())


def _answers(
    one: _Candidate, journal: Journal, cluster: Cluster | None, on_progress: OnProgress, before: int, total: int
) -> _Answers:
    """Run the model on the inputs that the journal does not have."""
    known, names = journal.recorded(one.key), {str(path) for path, _ in one.data.inputs}
    found = _Answers({name: scored for name, scored in known.items() if name in names})
    every = -(-len(names) // _EVENTS)
    todo = [(path, label) for path, label in one.data.inputs if str(path) not in found.scored]
    start = before + len(one.data.inputs) - len(todo)
    on_progress(ProgressEvent(text=one.name, done=start, total=total))
    for number, ((path, _), answer) in enumerate(_score_inputs(one, todo, cluster), 1):
        if isinstance(answer, Unreadable):
            _report_unreadable(found, answer)
        else:
            found.scored[str(path)] = answer
            journal.add(one.key, str(path), answer)
        if number % every == 0 or number == len(todo):
            on_progress(ProgressEvent(text=one.name, done=start + number, total=total))
    if not found.scored:
        first = found.unreadable[0].error
        whole = "the input could not" if len(todo) == 1 else f"none of the {len(todo)} inputs could"
        raise InputError(f"{whole} be read: {first.message}", first.hint)
    return found


def _score_inputs(one: _Candidate, inputs: Sequence[LabeledInput], cluster: Cluster | None) -> Iterator[Answer]:
    """Yield what each input gives: here in their order, on a cluster as its workers answer."""
    if not inputs:  # the journal has them all
        return iter(())
    if cluster is not None:
        return cluster.score(one.prepared, portable_files(one.model.artifact), inputs, one.engine)
    answers = one.model.predictions([path for path, _ in inputs])
    return zip(inputs, score(one.prepared.task.id, inputs, answers), strict=True)


def _report_unreadable(found: _Answers, answer: Unreadable) -> None:
    found.unreadable.append(answer)
    if len(found.unreadable) <= _REPORTED:
        _log.warning("%s", answer.error.message)


def _evaluate(one: _Candidate, found: _Answers, baseline: Mapping[str, ScoredInput] | None) -> EvaluatedModel:
    scored = [found.scored[str(path)] for path, _ in one.data.inputs if str(path) in found.scored]
    metrics = task_view(one.prepared.task.id).metrics([given.record for given in scored])
    return EvaluatedModel(
        artifact=one.name,
        runtime=scored[-1].runtime,
        runtime_version=scored[-1].runtime_version,
        count=len(scored),
        metrics=metrics.values,
        size_bytes=sum(path.stat().st_size for path in one.model.artifact.model_files()),
        median_ms=median([given.latency_ms for given in scored]),
        differences=_differences(one, metrics, found.scored, baseline) if baseline is not None else [],
        classes=metrics.classes,
        confusions=metrics.confusions,
        assumptions=one.prepared.assumptions,
        notes=(*one.data.notes, *_notes(metrics), *_engines_note(scored)),
    )


def _differences(
    one: _Candidate, metrics: Metrics, scored: Mapping[str, ScoredInput], baseline: Mapping[str, ScoredInput]
) -> list[Difference]:
    """Compare the first metric on the inputs that both models answered."""
    shared = [str(path) for path, _ in one.data.inputs if str(path) in scored and str(path) in baseline]
    pair = [baseline[name].record for name in shared], [scored[name].record for name in shared]
    first = next(iter(metrics.values), None)
    found = compare_records(task_view(one.prepared.task.id), first, *pair) if first and shared else None
    return [found] if found else []


def _notes(metrics: Metrics) -> list[str]:
    value = next(iter(metrics.values.values()), None)
    if value is None:
        return ["the labels define no metric: no object in any input"]
    if value == 0:
        return ["nothing is right: check the labels, --labels, --label-offset and --preprocess"]
    return []


def _engines_note(scored: Sequence[ScoredInput]) -> list[str]:
    """Return a note if several engines answered: on the workers of a cluster, or before the journal was continued."""
    engines = sorted({f"{one.runtime} {one.runtime_version}" for one in scored})
    return [f"{' and '.join(engines)} answered: their results may differ slightly"] if len(engines) > 1 else []


def _key(artifact: Artifact, prepared: PreparedModel, data: LabeledInputs, options: EvaluateOptions) -> str:
    """Return a digest of everything that a record depends on: model, preprocessing, decoder, engine, and labels."""
    digest = hashlib.sha256()
    for path in artifact.model_files():
        digest.update(sha256(path).encode())
    facts = [repr(prepared.artifact.manifest.preprocess), repr(prepared.decoder), options.runtime, options.threads]
    digest.update(json.dumps([*facts, list(options.shapes)]).encode())
    for source, label in data.inputs:
        content = source.text if isinstance(source, InlineText) else source.stat().st_size if source.is_file() else 0
        digest.update(f"{source}\0{label!r}\0{content}\n".encode())
    return digest.hexdigest()[:16]
