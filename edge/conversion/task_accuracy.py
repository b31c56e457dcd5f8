"""Measure what a conversion costs a detector, a segmenter or a pose model on labeled inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.sources.source import OpenedSource
from edge.console.progress import OnProgress
from edge.conversion.datasets import ConversionInputs
from edge.conversion.task import StatedTask
from edge.evaluation.report import EvaluateReport
from edge.evaluation.runner import EvaluateOptions, run_evaluation
from edge.inference.preprocessing import ModelHints
from edge.workers.process import OnProgress as OnWorkerProgress
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError, ProofError


@dataclass(frozen=True, kw_only=True)
class TaskAccuracy:
    """Compares a result with its source on labeled inputs, as `edge evaluate` does: by mAP, mean IoU or OKS.

    Classifiers are compared in the worker process instead (`edge.evaluation.accuracy`), which can keep layers in float.

    source: The model before the conversion.
    data: The labeled inputs.
    options: How both are evaluated; the journal keeps the source's results between the two methods.
    allowed: By how much the first metric may fall, 0 to 1.
    kept: The path that a failed result is moved to.
    on_progress: Called with what is done.
    """

    source: Path
    data: Path
    options: EvaluateOptions
    allowed: float
    kept: Path
    on_progress: OnProgress

    def check_source(self) -> None:
        """Evaluate the source, before anything is converted.

        Raises InputError if the data cannot be read or does not fit the model, and if the source finds nothing.
        """
        report = self._report(self.source)
        if report.unreadable:
            what = f"{report.unreadable} of the {report.count} evaluation inputs could not be read"
            raise InputError(what, "repair or remove them")
        if not next(iter(report.models[0].metrics.values()), 0.0):
            what = f"the source itself finds nothing of what is labeled in {self.data}"
            raise InputError(what, "check the labels, --labels, --task and --preprocess")

    def compare(self, artifact: Path) -> JsonObject:
        """Evaluate the result, and return "accuracy" of `edge convert --json`. Raises ProofError beyond the limit."""
        report = self._report(self.source, artifact)
        source, result = report.models
        found = result.differences[0]
        before, after = source.metrics[found.metric], result.metrics[found.metric]
        try:
            report.check_drop(self.allowed)
        except ProofError:
            what = f"{found.metric} falls from {before:.4f} to {after:.4f} on {result.count} evaluation inputs"
            raise ProofError(
                f"{what}; at most {self.allowed:.3g} is allowed", f"the result is in {self.kept}"
            ) from None
        return {
            "metric": found.metric,
            "samples": result.count,
            "source": round(before, 6),
            "artifact": round(after, 6),
            "drop": round(-found.value, 6),
            "interval": None if found.interval is None else [round(-end, 6) for end in reversed(found.interval)],
            "max_drop": self.allowed,
            "passed": True,
            "bytes": result.size_bytes,
        }

    def _report(self, *models: Path) -> EvaluateReport:
        return run_evaluation(models, self.data, self.options, self.on_progress)


def task_accuracy(
    stated: StatedTask | None,
    inputs: ConversionInputs,
    source: OpenedSource,
    work: Path,
    kept: Path,
    on_step: OnWorkerProgress,
) -> TaskAccuracy | None:
    """Return how the accuracy is measured; None if it is not, or if the worker does it, as for arrays with classes."""
    if stated is None or inputs.evaluate is None or inputs.evaluate.suffix == ".npz":
        return None
    hints = ModelHints(inputs.preprocess_options, labels=inputs.labels, task=inputs.task)
    return TaskAccuracy(
        source=source.model if source.artifact.is_bare else source.artifact.path,
        data=inputs.evaluate,
        options=EvaluateOptions(hints=hints, journal=work / "evaluation"),
        allowed=inputs.max_drop,
        kept=kept,
        on_progress=lambda event: on_step({"doing": f"evaluating, {event.done} of {event.total}", "done": 0}),
    )
