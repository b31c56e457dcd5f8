"""Read labeled pictures: which class each shows.

The class of each picture is specified in one of three ways:

    one sub-folder for each class              class/picture.jpg
    labels.csv, in the folder or its parent    columns `file` (relative to the CSV) and `class_index…` or `class`
    a CSV instead of a folder                  the same columns; its rows are the data set

A class is either an index, counted from 0 without a background class (ImageNet: 0…999), or a label.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from edge.evaluation.labeled_inputs import LabeledInputs, Names, indices_of, spread
from edge.inference.images import find_pictures
from edge.inference.inputs import Source
from runtimes.errors import InputError

LABELS_FILE = "labels.csv"
_DELIMITERS = ",;\t"
_TWO_WAYS = (
    f"put the pictures of each class into a sub-folder, or write {LABELS_FILE} with the columns file,class_index"
)


@dataclass(frozen=True)
class LabeledPictures:
    """Pictures and the class of each, as written in the data set: a number or a label."""

    pictures: tuple[Path, ...]
    classes: tuple[str, ...]

    def spread(self, most: int) -> LabeledPictures:
        """Return at most `most` of the pictures, evenly spaced."""
        chosen = spread(len(self.pictures), most)
        return LabeledPictures(tuple(self.pictures[i] for i in chosen), tuple(self.classes[i] for i in chosen))


def read_pictures(data: Path, names: Names) -> LabeledInputs:
    """Read labeled pictures for a model whose classes have these names. Raises InputError and UsageError."""
    labeled = find_labeled(data)
    indices = indices_of(labeled.classes, names)
    return label_inputs(labeled.pictures, indices)


def label_inputs(sources: Sequence[Source], indices: Sequence[int]) -> LabeledInputs:
    """Return inputs with the model's index of the class of each."""
    notes = ("all inputs have the same class: a model that always predicts it is right",)
    return LabeledInputs(tuple(zip(sources, indices, strict=True)), notes if len(set(indices)) == 1 else ())


def find_labeled(place: Path, files: Callable[[Path], list[Path]] = find_pictures) -> LabeledPictures:
    """Find labeled pictures, or other files. Raises InputError if there are none, or if the class of one is missing.

    files: Finds the files in a folder, like `find_pictures`.
    """
    if place.suffix.lower() == ".csv":
        return _read_list(place)
    pictures = files(place)
    for folder in (place, place.resolve().parent):
        if (folder / LABELS_FILE).is_file():
            return _by_file(pictures, folder / LABELS_FILE)
    alone = [picture for picture in pictures if picture.parent == place]
    if alone:
        raise InputError(f"the class of {alone[0]} is not specified", _TWO_WAYS)
    return LabeledPictures(tuple(pictures), tuple(picture.relative_to(place).parts[0] for picture in pictures))


def _read_list(document: Path) -> LabeledPictures:
    classes = _read(document)
    missing = next((path for path in classes if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{document} lists {missing}, which does not exist", "files are relative to the CSV's folder")
    if not classes:
        raise InputError(f"{document} lists no files", "write a row with file and class_index for each")
    return LabeledPictures(tuple(classes), tuple(classes.values()))


def _by_file(pictures: Sequence[Path], document: Path) -> LabeledPictures:
    classes = _read(document)
    for picture in pictures:
        if picture.resolve() not in classes:
            raise InputError(f"{document} has no class for {picture}", "add a row for it, or move the picture away")
    return LabeledPictures(tuple(pictures), tuple(classes[picture.resolve()] for picture in pictures))


def _read(document: Path) -> Mapping[Path, str]:
    """Read the class of each file listed in the CSV."""
    try:
        with document.open(encoding="utf-8-sig", newline="") as stream:
            rows = table(stream)
            columns = rows.fieldnames or []
            column = next((name for name in columns if name.startswith("class")), None)
            if column is None or "file" not in columns:
                raise InputError(_describe_columns(document, columns), "it needs file and class_index")
            return _classes_by_file(document, [(row["file"], row[column]) for row in rows if row["file"]])
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{document} cannot be read as CSV: {error}", _TWO_WAYS) from None


def _classes_by_file(document: Path, rows: Sequence[tuple[str, str | None]]) -> Mapping[Path, str]:
    """Return the class of each file. Raises InputError for a file without a class, or with two."""
    found: dict[Path, str] = {}
    for file, text in rows:
        path, name = (document.parent / file).resolve(), (text or "").strip()
        if not name:
            raise InputError(f"{document} has no class for {file}", "write one into its row")
        if found.setdefault(path, name) != name:
            raise InputError(f"{document} lists {file} as '{found[path]}' and as '{name}'", "remove one of the rows")
    return found


def _describe_columns(document: Path, columns: Sequence[str]) -> str:
    return f"{document} has the columns {', '.join(columns)}" if columns else f"{document} is empty"


def table(stream: TextIO) -> csv.DictReader[str]:
    """Return the rows of a CSV by their columns, separated by commas, semicolons or tabs: spreadsheets have all."""
    head = stream.readline()
    stream.seek(0)
    delimiter = next((one for one in _DELIMITERS if one in head), ",")
    return csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
