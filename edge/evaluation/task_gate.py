"""The acceptance condition of a conversion on labeled inputs: how far the first metric of the task may fall.

It holds for all tasks that `edge evaluate` scores. Classifiers have their own (`edge.evaluation.accuracy`), which
counts right answers and takes arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from converters.calibration.dataset import to_model_dtypes
from converters.pipeline.reference import Reference
from converters.pipeline.request import ConvertRequest
from converters.pipeline.verification import map_tensors
from converters.sources.source import OpenedSource
from edge.evaluation.differences import compare_records
from edge.evaluation.labeled_inputs import LabeledInput
from edge.evaluation.runner import CONFIDENCE, read_labeled
from edge.evaluation.scoring import score
from edge.inference.prediction import Unreadable, predict
from edge.inference.prepared_model import EngineChoice, PreparedModel, complete_model
from edge.inference.preprocessing import ModelHints
from edge.tasks import task_view
from edge.workers.process import OnProgress, Worker
from runtimes.arrays import Array, Arrays, load_arrays, save_arrays
from runtimes.artifact import TensorSpec
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.jobs import Job, R, RunAnswer, RunJob
from runtimes.session import Session
from runtimes.task import DecodeOptions
from runtimes.tensors import zeros
from runtimes.verification.selfcheck import answers

_SLACK = 1e-9


class _SessionWorker(Worker):
    """Runs the jobs of predictions on an open session of this process, with the names and layouts of the source."""

    def __init__(self, reference: Reference, session: Session) -> None:
        self._reference, self._session = reference, session

    def run(self, job: Job[R], *, timeout_s: float | None, on_progress: OnProgress | None = None) -> R:
        """Run samples; their outputs are real numbers."""
        del timeout_s, on_progress
        assert isinstance(job, RunJob)
        if self._reference.stateful:
            what = "a model that keeps a state in variables is not judged while it is converted"
            raise UsageError(what, "leave out --evaluate; compare with `edge evaluate SOURCE ARTIFACT --max-drop`")
        samples = load_arrays(Path(job.inputs))
        found = self._in_order(samples, job.states) if job.states else self._outputs(samples)
        save_arrays(Path(job.outputs), found)
        count = len(next(iter(samples.values())))
        return cast("R", RunAnswer(runtime="", runtime_version="", first_ms=0.0, latency_ms=[0.0] * count))

    def _outputs(self, samples: Arrays) -> Arrays:
        theirs, outputs = tuple(self._session.inputs), tuple(self._session.outputs)
        found = answers(self._session, to_model_dtypes(theirs, map_tensors(self._reference.inputs, theirs, samples)))
        return map_tensors(outputs, self._reference.outputs, found, "output")

    def _in_order(self, samples: Arrays, states: Mapping[str, str]) -> Arrays:
        """Run samples that follow one another: states, which are zero at first, are inputs that outputs give."""
        specs = {spec.name: spec for spec in self._reference.inputs}
        held = {name: zeros(specs[name])[np.newaxis] for name in states}
        rows = []
        for index in range(len(next(iter(samples.values())))):
            row = self._outputs({**{name: array[index : index + 1] for name, array in samples.items()}, **held})
            held = {name: row[output] for name, output in states.items()}
            rows.append({name: array for name, array in row.items() if name not in states.values()})
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True, kw_only=True)
class TaskGate:
    """A limit on the loss of a metric.

    model: The source, whose decoder decodes all results.
    reference: The source's inputs and outputs.
    inputs: The labeled inputs.
    source: The source's records of them.
    allowed: By how much the metric may fall, 0 to 1.
    """

    model: PreparedModel
    reference: Reference
    inputs: Sequence[LabeledInput]
    source: Sequence[Array]
    allowed: float

    def accuracy(self, session: Session, size: int) -> TaskScore:
        """Score the result in `session`, whose files have `size` bytes."""
        view, found = task_view(self.model.task.id), _records(self.model, self.reference, self.inputs, session)
        metric, before = next(iter(view.metrics(self.source).values.items()))
        compared = compare_records(view, metric, self.source, found)
        return TaskScore(
            metric=metric,
            samples=len(self.inputs),
            source=before,
            result=view.metrics(found).values[metric],
            interval=compared.interval if compared is not None else None,
            allowed=self.allowed,
            size=size,
        )

    def notes(self) -> list[str]:
        """Return no notes."""
        return []


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """A metric of a source and of its conversion.

    interval: Where the difference of the two lies, with a confidence of 95 %; None for too few inputs.
    allowed: The largest allowed drop, 0 to 1.
    size: The size of the result's files in bytes.
    """

    metric: str
    samples: int
    source: float
    result: float
    interval: tuple[float, float] | None
    allowed: float
    size: int

    @property
    def passed(self) -> bool:
        """Whether the drop is within the limit."""
        return self.source - self.result <= self.allowed + _SLACK

    def as_dict(self) -> JsonObject:
        """Return "accuracy" of `edge convert --json`."""
        return {
            "metric": self.metric,
            "samples": self.samples,
            "source": round(self.source, 6),
            "artifact": round(self.result, 6),
            "drop": round(self.source - self.result, 6),
            "interval": None if self.interval is None else [round(-end, 6) for end in reversed(self.interval)],
            "max_drop": self.allowed,
            "passed": self.passed,
            "bytes": self.size,
        }

    def error(self, worst_layers: str, hint: str) -> ProofError:
        """Return the drop as an error; `worst_layers` names the layers that lose most, empty if they are not known."""
        layers = f"; the layers that lose most: {worst_layers}" if worst_layers else ""
        what = f"{self.metric} falls from {self.source:.4f} to {self.result:.4f} on {self.samples} evaluation inputs"
        return ProofError(f"{what}; at most {self.allowed:.3g} is allowed{layers}", hint)


def make_task_gate(request: ConvertRequest, source: OpenedSource, reference: Reference, session: Session) -> TaskGate:
    """Read the labeled inputs of a request, and score the source.

    Raises InputError if the data cannot be read or does not fit the model, and if the source finds nothing.
    """
    assert request.evaluation is not None
    model = _prepare_source(request, source, reference)
    inputs = read_labeled(model, request.evaluation).inputs
    records = _records(model, reference, inputs, session)
    if not next(iter(task_view(model.task.id).metrics(records).values.values()), 0.0):
        what = f"the source itself finds nothing of what is labeled in {request.evaluation}"
        raise InputError(what, "check the labels, --labels, --task and --preprocess")
    return TaskGate(model=model, reference=reference, inputs=inputs, source=records, allowed=request.max_drop)


def _prepare_source(request: ConvertRequest, source: OpenedSource, reference: Reference) -> PreparedModel:
    known = source.artifact.manifest
    outputs = tuple(_real(spec) for spec in reference.outputs)
    manifest = replace(
        known, inputs=reference.inputs, outputs=outputs, preprocess=reference.preprocess, task=request.task
    )
    artifact, options = replace(source.artifact, manifest=manifest), DecodeOptions(confidence=CONFIDENCE)
    takes_pictures = reference.preprocess is not None
    return complete_model(
        artifact, ModelHints(), lambda: (reference.inputs, outputs), takes_pictures=takes_pictures, options=options
    )


def _real(spec: TensorSpec) -> TensorSpec:
    return spec if spec.quantization is None else replace(spec, dtype="float32", quantization=None)


def _records(
    model: PreparedModel, reference: Reference, inputs: Sequence[LabeledInput], session: Session
) -> Sequence[Array]:
    given = predict(model, [source for source, _ in inputs], _SessionWorker(reference, session), EngineChoice())
    found = []
    for one in score(model.task.id, inputs, given):
        if isinstance(one, Unreadable):
            raise InputError(f"an evaluation input could not be read: {one.error.message}", one.error.hint)
        found.append(one.record)
    return found
