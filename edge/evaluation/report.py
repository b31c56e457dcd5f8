"""The result of an evaluation, which `edge evaluate --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.evaluation.differences import Difference
from edge.tasks import Confusion
from runtimes.artifact.json_fields import JsonObject, JsonValue, to_json
from runtimes.errors import ProofError

_SLACK = 1e-9
_CONFUSIONS = 20  # in JSON, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One model on a data set.

    artifact: The model as it was named.
    runtime, runtime_version: The engine.
    count: The number of inputs that it answered.
    metrics: Metric → value, 0 to 1; the first is the one that models are compared by.
    size_bytes: The size of the model's files.
    median_ms: The median duration of an inference.
    differences: The difference of each metric from the first model; empty for the first model itself.
    classes: Class → its value of the first metric.
    confusions: Which classes are taken for which others, most frequent first.
    assumptions: What was assumed of the model for lack of information.
    notes: What limits the meaning of the metrics.
    """

    artifact: str
    runtime: str
    runtime_version: str
    count: int
    metrics: Mapping[str, float]
    size_bytes: int
    median_ms: float
    differences: Sequence[Difference]
    classes: Mapping[int, float]
    confusions: Sequence[Confusion]
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluateReport:
    """Models on a data set.

    data: The data set as it was named.
    task: The task of all models.
    count: The number of labeled inputs.
    unreadable: How many of them could not be read.
    names: Class → name, as far as they are known.
    models: The models in the order in which they were named; the first is the baseline.
    """

    data: str
    task: str
    count: int
    unreadable: int
    names: Mapping[int, str]
    models: Sequence[EvaluatedModel]

    def name(self, index: int) -> str:
        """Return a class's name, without synonyms, with its index."""
        return f"{self.names[index].split(',')[0]} ({index})" if index in self.names else f"class {index}"

    def check_drop(self, allowed: float) -> None:
        """Raise ProofError if a model's first metric is lower than that of the first model by more than allowed.

        Also if the labels define no metric.
        """
        if not self.models[0].metrics:
            raise ProofError("the labels define no metric, so no drop can be judged", "pass labels of some objects")
        for model in self.models:
            found = model.differences[0] if model.differences else None
            if found is not None and -found.value > allowed + _SLACK:
                what = f"{found.metric} of {model.artifact} is {-found.value:.4g} lower than that of the first model"
                raise ProofError(f"{what}; at most {allowed:.4g} is allowed", "see where: `edge evaluate --json`")

    def to_json(self) -> JsonObject:
        """Return the object of `edge evaluate --json`."""
        return {
            "data": self.data,
            "task": self.task,
            "inputs": self.count,
            "unreadable": self.unreadable,
            "models": [self._model(one) for one in self.models],
        }

    def _model(self, one: EvaluatedModel) -> JsonObject:
        classes: list[JsonValue] = [
            {"index": index, "label": self.names.get(index), "value": value} for index, value in one.classes.items()
        ]
        confusions: list[JsonValue] = [
            {
                "index": label,
                "label": self.names.get(label),
                "predicted_index": predicted,
                "predicted_label": self.names.get(predicted),
                "count": count,
            }
            for label, predicted, count in one.confusions[:_CONFUSIONS]
        ]
        return {
            "artifact": one.artifact,
            "runtime": one.runtime,
            "runtime_version": one.runtime_version,
            "inputs": one.count,
            "metrics": dict(one.metrics),
            "differences": [to_json(found) for found in one.differences],
            "size_bytes": one.size_bytes,
            "median_ms": one.median_ms,
            "classes": classes,
            "confusions": confusions,
            "assumptions": list(one.assumptions),
            "notes": list(one.notes),
        }
