"""Labeled inputs, and how the classes of a data set are matched with those of a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.inference.inputs import Source
from runtimes.errors import InputError, UsageError

LabeledInput = tuple[Source, Any]
_NAMED = 3  # classes in a message
Names = Mapping[int, str | None]  # a model's classes by the index that its results have


@dataclass(frozen=True)
class LabeledInputs:
    """A data set for one model.

    inputs: Each input, and its label as the task's view takes it (`edge.tasks.TaskView.record`).
    notes: What is to be known about the labels.
    """

    inputs: tuple[LabeledInput, ...]
    notes: tuple[str, ...] = ()

    def spread(self, most: int | None) -> LabeledInputs:
        """Return at most `most` of the inputs, evenly spaced; None returns all."""
        if most is None:
            return self
        return LabeledInputs(tuple(self.inputs[i] for i in spread(len(self.inputs), most)), self.notes)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `count`, evenly spaced."""
    return [int(one) for one in np.linspace(0, count - 1, min(count, most)).astype(int)]


def indices_of(classes: Sequence[str], names: Names) -> list[int]:
    """Return the model's index of each class of a data set.

    names: The model's classes by index; empty if they are not known.

    Raises InputError for a class that the model does not have, and UsageError if the model's labels are needed.
    """
    if all(one.isdecimal() for one in classes):
        wrong = next((one for one in classes if names and int(one) not in names), None)
        if wrong is not None:
            what = f"there is no class {wrong}: the model has the classes {max(min(names), 0)} to {max(names)}"
            raise InputError(what, "count classes from 0, without a background; see --label-offset")
        return [int(one) for one in classes]
    if all(name is None for name in names.values()):
        what = f"the class '{next(one for one in classes if not one.isdecimal())}' is not a number"
        raise UsageError(what, "pass the model's labels with --labels, or number the classes from 0")
    known = _by_name(names)
    found = {one: _index(one, known) for one in dict.fromkeys(classes)}
    return [found[one] for one in classes]


def names_of_classes(classes: Sequence[str], names: Names) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the model's index of each class of a data set by its place in the list, and notes.

    A class that the model does not have gets a negative index. A model without labels has its classes in the data
    set's order. Raises InputError if the model has labels, and none of them is in the data set.
    """
    if all(name is None for name in names.values()):
        note = "the model has no labels: its classes are taken to be the data set's, in their order (--labels)"
        return {place: place for place in range(len(classes))}, (note,)
    known = _by_name(names)
    found = {place: min(known.get(same_name(name), {-1 - place})) for place, name in enumerate(classes)}
    lost = [name for place, name in enumerate(classes) if found[place] < 0]
    if classes and len(lost) == len(classes):
        ours, theirs = _some([name for name in names.values() if name]), _some(classes)
        what = f"no class of the data set ({theirs}) is one of the model's labels ({ours})"
        raise InputError(what, "pass the model's labels in the data set's words with --labels")
    notes = (f"the model does not know {', '.join(lost)}: these objects count as missed",) if lost else ()
    return found, notes


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])


def same_name(name: str) -> str:
    """Return the form of a name by which classes are matched: without case, and with spaces for _ and -."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _by_name(names: Names) -> Mapping[str, set[int]]:
    """Map each label to its classes; each synonym in a label ("tench, Tinca tinca") is a key as well."""
    known: dict[str, set[int]] = {}
    for index, label in names.items():
        for name in {label, *label.split(",")} if label else ():
            known.setdefault(same_name(name), set()).add(index)
    return known


def _index(name: str, known: Mapping[str, set[int]]) -> int:
    found = known.get(same_name(name), set())
    if len(found) > 1:
        raise InputError(f"the class '{name}' is the label of {len(found)} classes", "number the classes from 0")
    if not found:
        near = difflib.get_close_matches(same_name(name), known, 1)
        hint = f"did you mean '{near[0]}'?" if near else "name classes after the model's labels, or number them from 0"
        raise InputError(f"the class '{name}' is not one of the model's labels", hint)
    return next(iter(found))
