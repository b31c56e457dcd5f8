"""Reduce a model's answers to labeled inputs to what the metrics of its task need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge.evaluation.labeled_inputs import LabeledInput
from edge.inference.prediction import Prediction, Unreadable
from edge.tasks import task_view
from runtimes.arrays import Array


@dataclass(frozen=True, kw_only=True, eq=False)  # comparing arrays does not give a bool
class ScoredInput:
    """What one input gave.

    runtime, runtime_version: The engine.
    latency_ms: The duration of the inference.
    record: What the task's view scores (`edge.tasks.TaskView.record`).
    """

    runtime: str
    runtime_version: str
    latency_ms: float
    record: Array


def score(
    task_id: str, inputs: Iterable[LabeledInput], answers: Iterable[Prediction | Unreadable]
) -> Iterator[ScoredInput | Unreadable]:
    """Yield what each input gives, from the model's answers to the inputs in their order."""
    view = task_view(task_id)
    for (_, label), answer in zip(inputs, answers, strict=True):
        if isinstance(answer, Unreadable):
            yield answer
            continue
        yield ScoredInput(
            runtime=answer.runtime,
            runtime_version=answer.runtime_version,
            latency_ms=answer.latency_ms,
            record=view.record(answer.result, label),
        )
