"""Views of task results: each module formats, draws and scores the results of one task.

The other half of a task, which recognizes models and decodes their outputs, is in `runtimes/tasks/`, because it also
runs on boards.
"""

from __future__ import annotations

import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import UsageError
from runtimes.extensions import load
from runtimes.task import Result

if TYPE_CHECKING:
    from PIL.Image import Image

R = TypeVar("R", bound=Result)
L = TypeVar("L")


class Confusion(NamedTuple):
    """How often the class `label` is taken for `predicted`: in inputs, or in pixels of class maps."""

    label: int
    predicted: int
    times: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The quality of the results on a data set.

    count: The number of inputs.
    values: Metric → value, from 0 to 1, higher is better; the first is the one that models are compared by. A metric
        without a meaning for these inputs is missing.
    classes: Class → its value of the first metric.
    confusions: Which classes are taken for which others, most frequent first.
    """

    count: int
    values: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[int, float] = field(default_factory=dict)
    confusions: tuple[Confusion, ...] = ()


class TaskView(ABC, Generic[R, L]):
    """Prints and draws a task's results `R`, and scores them against labels `L`.

    id: The task's id, which is the name of its module here and in `runtimes/tasks/`.
    """

    id: str

    @abstractmethod
    def describe(self, result: R) -> str:
        """Format the result as lines for a terminal, without a newline at the end."""

    def row(self, result: R) -> JsonObject:
        """Return keys to add to the input's row in `edge run --json`, next to "result"."""
        del result
        return {}

    def draw(self, image: Image, result: R) -> Image:
        """Draw the result on a copy of the picture. Raises UsageError if the task's results cannot be drawn."""
        del image, result
        raise UsageError(f"results of the task '{self.id}' cannot be drawn", "print them as JSON with --json")

    def record(self, result: R, label: L) -> Array:
        """Reduce a result and its label to what `metrics` needs, as float64 [rows, columns].

        The records of a whole data set are kept in memory. Raises UsageError if the task cannot be scored.
        """
        del result, label
        raise self._no_score_error()

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute the metrics of the records of some inputs. Raises UsageError if the task cannot be scored."""
        del records
        raise self._no_score_error()

    def right(self, records: Sequence[Array]) -> Array | None:
        """Return for each input whether it is right, if the first metric is their share; None if it is not."""
        del records
        return None

    def score(self, results: Iterable[tuple[R, L]]) -> Metrics:
        """Compute the metrics of results and their labels. Raises UsageError if the task cannot be scored."""
        return self.metrics([self.record(result, label) for result, label in results])

    def _no_score_error(self) -> UsageError:
        return UsageError(f"results of the task '{self.id}' cannot be scored", "score them with your own program")


class JsonView(TaskView[Result, Any]):
    """The view of a task without its own: shows results as JSON."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id

    def describe(self, result: Result) -> str:
        """Format the result as indented JSON."""
        return json.dumps(result.to_json(), indent=2)


@cache
def task_view(task_id: str) -> TaskView[Any, Any]:
    """Return the view of a task; `JsonView` if it has none."""
    built_in = tuple(module.name for module in pkgutil.iter_modules(__path__))
    if task_id in built_in:
        name = "".join(part.capitalize() for part in task_id.split("_"))
        return cast("TaskView[Any, Any]", vars(import_module(f"edge.tasks.{task_id}"))[f"{name}View"]())
    found = load("edge.task_views", built_in, _check_view).found
    return cast("TaskView[Any, Any]", found[task_id]) if task_id in found else JsonView(task_id)


def _check_view(found: object) -> None:
    if not isinstance(found, TaskView):
        raise TypeError("it is not an edge.tasks.TaskView")
