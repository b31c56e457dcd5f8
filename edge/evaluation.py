"""Labelled pictures, to measure how many of them a source and its conversion answer right.

A folder says the class of each picture in one of two ways:

    labels.csv, in the folder or the one above    columns `file` (relative to the CSV) and `class_index…` or `class`
    one sub-folder for each class                 class/picture.jpg

A class is a number that counts real classes from 0, without a background (ImageNet's 0…999), or a label.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.accuracy import CLASSES, ROWS
from converters.calibration import PIXELS
from edge.pictures import load_all, picture_files
from runtimes.artifact import Preprocess
from runtimes.errors import InputError, UsageError
from runtimes.worker import save_arrays

LABELS_FILE = "labels.csv"
MOST_PICTURES = 2000  # decoded at 224 × 224 they are 300 MB; a share of them is known to 1 % then
_TWO_WAYS = (
    f"put the pictures of each class into a sub-folder, or write {LABELS_FILE} with the columns file,class_index"
)


@dataclass(frozen=True)
class Labelled:
    """Pictures and the class of each, as it was written: a number or a label."""

    pictures: tuple[Path, ...]
    classes: tuple[str, ...]

    def spread(self, most: int = MOST_PICTURES) -> Labelled:
        """At most so many of them, evenly spread."""
        count = len(self.pictures)
        chosen = np.linspace(0, count - 1, min(count, most)).astype(int)
        return Labelled(tuple(self.pictures[i] for i in chosen), tuple(self.classes[i] for i in chosen))


def find_labelled(folder: Path) -> Labelled:
    """The pictures in `folder` with their classes; InputError where the class of one is not said."""
    pictures = picture_files(folder)
    for place in (folder, folder.resolve().parent):
        if (place / LABELS_FILE).is_file():
            return _by_file(pictures, place / LABELS_FILE)
    alone = [picture for picture in pictures if picture.parent == folder]
    if alone:
        raise InputError(f"the class of {alone[0]} is not said", _TWO_WAYS)
    return Labelled(tuple(pictures), tuple(picture.relative_to(folder).parts[0] for picture in pictures))


def write_evaluation(place: Path, labelled: Labelled, preprocess: Preprocess, labels: Sequence[str] | None) -> None:
    """The decoded pictures and their classes as the `.npz` that `converters.accuracy` reads.

    `labels` are the model's, one for each row of its output; InputError for a class that is none of them.
    """
    if all(one.isdecimal() for one in labelled.classes):
        numbers = {CLASSES: np.array([int(one) for one in labelled.classes])}
    else:
        numbers = {ROWS: np.array(_rows(labelled.classes, labels))}
    save_arrays(place, {PIXELS: load_all(labelled.pictures, preprocess), **numbers})


def _by_file(pictures: Sequence[Path], document: Path) -> Labelled:
    said = _read(document)
    for picture in pictures:
        if picture.resolve() not in said:
            raise InputError(f"{document} says no class for {picture}", "add a row for it, or move the picture away")
    return Labelled(tuple(pictures), tuple(said[picture.resolve()] for picture in pictures))


def _read(document: Path) -> Mapping[Path, str]:
    """The class of each file that the CSV names."""
    try:
        with document.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            column = next((name for name in columns if name.startswith("class")), None)
            if column is None or "file" not in columns:
                raise InputError(f"{document} has the columns {', '.join(columns)}", "it needs file and class_index")
            return {
                (document.parent / row["file"]).resolve(): (row[column] or "").strip() for row in rows if row["file"]
            }
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{document} cannot be read as CSV: {error}", _TWO_WAYS) from None


def _rows(classes: Sequence[str], labels: Sequence[str] | None) -> list[int]:
    """The output's row of each class that is written as a label."""
    if labels is None:
        what = f"the class '{next(one for one in classes if not one.isdecimal())}' is no number"
        raise UsageError(what, "give the model's labels with --labels, or number the classes from 0")
    known = _by_name(labels)
    return [_row(one, known) for one in classes]


def _by_name(labels: Sequence[str]) -> Mapping[str, set[int]]:
    """Rows by label; one of several words for a class ("tench, Tinca tinca") will do."""
    known: dict[str, set[int]] = {}
    for row, label in enumerate(labels):
        for name in {label, *label.split(",")}:
            known.setdefault(_plain(name), set()).add(row)
    return known


def _row(name: str, known: Mapping[str, set[int]]) -> int:
    rows = known.get(_plain(name), set())
    if len(rows) > 1:
        raise InputError(f"the class '{name}' is the label of {len(rows)} classes", "number the classes from 0")
    if not rows:
        near = difflib.get_close_matches(_plain(name), known, 1)
        hint = f"did you mean '{near[0]}'?" if near else "name classes after the model's labels, or number them from 0"
        raise InputError(f"the class '{name}' is none of the model's labels", hint)
    return next(iter(rows))


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())
