"""Read labeled sounds and texts: the class of each, from folders and CSV files as for pictures.

A CSV of texts may hold the texts themselves, in a column `text` instead of `file`. The class `none` is that of sounds
in which a model should hear nothing, such as one for a wake word.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.evaluation.labeled_inputs import LabeledInputs, Names, indices_of, same_name
from edge.evaluation.labeled_pictures import find_labeled, label_inputs, table
from edge.inference.images import find_files
from edge.inference.inputs import SOUND_SUFFIXES, TEXT_SUFFIX, InlineText
from edge.inference.texts import MAX_TEXT_BYTES
from runtimes.errors import InputError

NOT_HEARD = -1  # the index of `none`
_NONE = "none"


def read_sounds(data: Path, names: Names) -> LabeledInputs:
    """Read labeled sounds for a model whose classes have these names. Raises InputError and UsageError."""
    labeled = find_labeled(data, _finder("sounds", SOUND_SUFFIXES))
    is_class = any(same_name(name or "") == _NONE for name in names.values())
    heard = [is_class or same_name(one) != _NONE for one in labeled.classes]
    found = iter(indices_of([one for one, is_heard in zip(labeled.classes, heard, strict=True) if is_heard], names))
    return label_inputs(labeled.pictures, [next(found) if is_heard else NOT_HEARD for is_heard in heard])


def read_texts(data: Path, names: Names) -> LabeledInputs:
    """Read labeled texts for a model whose classes have these names. Raises InputError and UsageError."""
    if data.suffix.lower() == ".csv" and (rows := _texts(data)) is not None:
        texts = [InlineText(f"{data}, row {number}", text) for number, (text, _) in enumerate(rows, 1)]
        return label_inputs(texts, indices_of([one for _, one in rows], names))
    labeled = find_labeled(data, _finder("texts", (TEXT_SUFFIX,)))
    return label_inputs(labeled.pictures, indices_of(labeled.classes, names))


def _texts(document: Path) -> Sequence[tuple[str, str]] | None:
    """Return text and class of each row of a CSV; None if it has no column `text`."""
    limit = csv.field_size_limit(MAX_TEXT_BYTES)
    try:
        with document.open(encoding="utf-8-sig", newline="") as stream:
            rows = table(stream)
            columns = rows.fieldnames or []
            if "text" not in columns:
                return None
            column = next((name for name in columns if name.startswith("class")), None)
            if column is None:
                raise InputError(f"{document} has the columns {', '.join(columns)}", "it needs text and class")
            found = [(row["text"] or "", (row[column] or "").strip()) for row in rows]
            unlabeled = next((number for number, (_, name) in enumerate(found, 1) if not name), None)
            if unlabeled is not None:
                raise InputError(f"{document} has no class in row {unlabeled}", "write one into it")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = f"write the columns text,class in UTF-8, with at most {MAX_TEXT_BYTES:,} characters a text"
        raise InputError(f"{document} cannot be read as CSV: {error}", hint) from None
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise InputError(f"{document} lists no texts", "write a row with text and class for each")
    return found


def _finder(kind: str, suffixes: Sequence[str]) -> Callable[[Path], list[Path]]:
    """Return a function that finds the files with these suffixes in a folder and its subfolders."""

    def find(folder: Path) -> list[Path]:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", f"pass a folder of {kind}, or a CSV")
        found = [path for path in find_files(folder) if path.suffix.lower() in suffixes]
        if not found:
            raise InputError(f"{folder} contains no {kind}", f"known suffixes: {' '.join(suffixes)}")
        return found

    return find
