"""The tasks: one file each, found by listing this folder, plus extensions; see `runtimes.task`."""

from __future__ import annotations

import difflib
import pkgutil
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from runtimes.errors import UsageError
from runtimes.extensions import Extensions, load
from runtimes.model_files.facts import TASK_OPTION, ModelFacts
from runtimes.session import format_shape
from runtimes.task import Decoder, Task

_FALLBACK = "tensors"


def task_ids() -> list[str]:
    """Return all task ids, including extensions', sorted."""
    return sorted((*_built_in_names(), *_extensions().found))


@lru_cache(maxsize=None)
def _built_in_names() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def _extensions() -> Extensions:
    return load("edge.tasks", _built_in_names(), _check_task)


def _check_task(found: object) -> None:
    if not isinstance(found, Task):
        raise TypeError("it is not a runtimes.task.Task")


@lru_cache(maxsize=None)
def load_task(task_id: str) -> Task[Any]:
    """Return a task. Raises UsageError, suggesting the nearest name, for an unknown id."""
    known, extensions = task_ids(), _extensions()
    if task_id in extensions.found:
        return cast("Task[Any]", extensions.found[task_id])
    if task_id not in known:
        near = difflib.get_close_matches(task_id, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"tasks: {', '.join(known)}"
        raise UsageError(f"there is no task '{task_id}'", hint)
    module = import_module(f"runtimes.tasks.{task_id}")
    return cast("Task[Any]", vars(module)[f"{''.join(part.capitalize() for part in task_id.split('_'))}Task"]())


def recognize(model: ModelFacts) -> tuple[Task[Any], Decoder[Any]]:
    """Return a model's task and the decoder of its outputs; the task `tensors` if no other recognizes it.

    If the user or the model names a task, only that one is tried. Raises UsageError if the user names one that does not
    decode the model's outputs.
    """
    for task in sorted(map(load_task, _candidates(model)), key=lambda task: (task.rank, task.id)):
        decoder = task.recognize(model)
        if decoder is not None:
            return task, decoder
    if model.task is not None and model.origins.get("task") == TASK_OPTION:
        shapes = ", ".join(f"{spec.name} {spec.dtype}{format_shape(spec.shape)}" for spec in model.outputs)
        raise UsageError(
            f"{model.source}: edge cannot decode these outputs as {model.task}: {shapes}",
            "leave out --task, or use --task tensors",
        )
    fallback = load_task(_FALLBACK)
    decoder = fallback.recognize(model)
    assert decoder is not None, "the task 'tensors' takes every model"
    return fallback, decoder


def _candidates(model: ModelFacts) -> list[str]:
    """Return the ids of the tasks to try. Raises UsageError if the user names one that does not exist."""
    if model.task is None:
        return task_ids()
    if model.origins.get("task") == TASK_OPTION:
        return [load_task(model.task).id]
    return [model.task] if model.task in task_ids() else []
