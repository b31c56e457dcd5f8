"""Views of task results: each module formats, draws and scores the results of one task.

The other half of a task, which recognises models and decodes their outputs, is in `runtimes/tasks/`, because it also
runs on boards.
"""

from __future__ import annotations

import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import UsageError
from runtimes.extensions import load
from runtimes.task import Result

if TYPE_CHECKING:
    from PIL.Image import Image

R = TypeVar("R", bound=Result)
L = TypeVar("L")


@dataclass(frozen=True)
class Metrics:
    """The quality of the results on a data set of `count` inputs: metric → value."""

    count: int
    values: Mapping[str, float] = field(default_factory=dict)


class TaskView(ABC, Generic[R, L]):
    """Formats a task's results `R` for people, and scores them against labels `L`.

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

    def score(self, results: Iterable[tuple[R, L]]) -> Metrics:
        """Compute the metrics of results and their labels. Raises UsageError if the task cannot be scored."""
        del results
        raise UsageError(f"results of the task '{self.id}' cannot be scored", "score them with your own program")


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
