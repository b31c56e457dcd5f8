"""Read the user's data sets: calibration data, and labelled pictures for measuring accuracy.

A folder of labelled pictures specifies the class of each picture in one of two ways:

    labels.csv, in the folder or its parent    columns `file` (relative to the CSV) and `class_index…` or `class`
    one sub-folder for each class              class/picture.jpg

A class is either an index, counted from 0 without a background class (ImageNet: 0…999), or a label.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.calibration.dataset import MAX_SAMPLES, PIXELS
from converters.calibration.generator import is_reference
from converters.pipeline.request import MAX_DROP, SamplesAnswer, SamplesJob
from converters.sources.source import OpenedSource
from edge.evaluation.accuracy import CLASSES, ROWS
from edge.inference.images import load_all, picture_files
from edge.inference.preprocessing import PreprocessOptions
from edge.workers.process import OnProgress, run_job
from runtimes.arrays import save_arrays
from runtimes.artifact import Preprocess
from runtimes.artifact.labels import read_labels
from runtimes.errors import InputError, UsageError, WorkerCrashedError

LABELS_FILE = "labels.csv"
MAX_PICTURES = 2000  # decoded at 224 × 224 they take 300 MB; they give an accuracy to within 1 %
_TWO_WAYS = (
    f"put the pictures of each class into a sub-folder, or write {LABELS_FILE} with the columns file,class_index"
)


@dataclass(frozen=True)
class Labelled:
    """Pictures and the class of each, as written in the data set: a number or a label."""

    pictures: tuple[Path, ...]
    classes: tuple[str, ...]

    def spread(self, most: int = MAX_PICTURES) -> Labelled:
        """Return at most `most` of the pictures, evenly spaced."""
        count = len(self.pictures)
        chosen = np.linspace(0, count - 1, min(count, most)).astype(int)
        return Labelled(tuple(self.pictures[i] for i in chosen), tuple(self.classes[i] for i in chosen))


def find_labelled(folder: Path) -> Labelled:
    """Find the pictures in `folder` and their classes. Raises InputError if the class of a picture is missing."""
    pictures = picture_files(folder)
    for place in (folder, folder.resolve().parent):
        if (place / LABELS_FILE).is_file():
            return _by_file(pictures, place / LABELS_FILE)
    alone = [picture for picture in pictures if picture.parent == folder]
    if alone:
        raise InputError(f"the class of {alone[0]} is not specified", _TWO_WAYS)
    return Labelled(tuple(pictures), tuple(picture.relative_to(folder).parts[0] for picture in pictures))


def write_evaluation(place: Path, labelled: Labelled, preprocess: Preprocess, labels: Sequence[str] | None) -> None:
    """Write the decoded pictures and their classes to an `.npz` file for `edge.evaluation.accuracy`.

    `labels` are the model's labels, one for each row of its output. Raises InputError for a class not among them.
    """
    if all(one.isdecimal() for one in labelled.classes):
        numbers = {CLASSES: np.array([int(one) for one in labelled.classes])}
    else:
        numbers = {ROWS: np.array(_rows(labelled.classes, labels))}
    save_arrays(place, {PIXELS: load_all(labelled.pictures, preprocess), **numbers})


def _by_file(pictures: Sequence[Path], document: Path) -> Labelled:
    classes = _read(document)
    for picture in pictures:
        if picture.resolve() not in classes:
            raise InputError(f"{document} has no class for {picture}", "add a row for it, or move the picture away")
    return Labelled(tuple(pictures), tuple(classes[picture.resolve()] for picture in pictures))


def _read(document: Path) -> Mapping[Path, str]:
    """Read the class of each file listed in the CSV."""
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
    """Return the row of the output for each class that is written as a label."""
    if labels is None:
        what = f"the class '{next(one for one in classes if not one.isdecimal())}' is not a number"
        raise UsageError(what, "pass the model's labels with --labels, or number the classes from 0")
    known = _by_name(labels)
    return [_row(one, known) for one in classes]


def _by_name(labels: Sequence[str]) -> Mapping[str, set[int]]:
    """Map each label to its rows; each synonym in a label ("tench, Tinca tinca") is a key as well."""
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
        raise InputError(f"the class '{name}' is not one of the model's labels", hint)
    return next(iter(rows))


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class ConversionInputs:
    """The data that the user passes with the model.

    calibration: A folder of pictures, an .npz, or "module:callable" for the user's own code.
    labels: A file with one label per line.
    preprocess_options: How pictures become the model's input.
    kind: What the numbers of the output are, such as "probability".
    label_offset: The row of the output that belongs to class 0.
    evaluate: A folder of labelled pictures (see the module's docstring), or an .npz of labelled inputs.
    max_drop: By how much the top-1 accuracy on `evaluate` may fall, 0 to 1.
    task: The task's id.
    pythons: Interpreters to try first when an environment is created.
    """

    calibration: Path | None = None
    labels: Path | None = None
    preprocess_options: PreprocessOptions = field(default_factory=PreprocessOptions)
    kind: str | None = None
    label_offset: int | None = None
    evaluate: Path | None = None
    max_drop: float = MAX_DROP
    task: str | None = None
    pythons: tuple[Path, ...] = ()


def calibration_samples(
    calibration: Path | None,
    preprocess: Preprocess | None,
    work: Path,
    on_progress: OnProgress | None,
) -> tuple[Path | None, list[str]]:
    """Return the .npz of calibration inputs for the worker, and notes for the user.

    The file is the user's own, or written from the samples of the user's code or from decoded pictures.
    """
    if calibration is None:
        return None, []
    place = work / "samples.npz"
    if is_reference(str(calibration)):
        return place, write_samples(str(calibration), place, on_progress)
    if calibration.suffix == ".npz":
        if not calibration.is_file():
            raise InputError(f"{calibration} does not exist", "pass a folder of pictures or an .npz")
        return calibration, []
    paths = picture_files(calibration)
    if preprocess is None:
        raise _no_preprocessing()
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_SAMPLES)).astype(int)]
    save_arrays(place, {PIXELS: load_all(chosen, preprocess)})
    return place, []


def evaluation_inputs(
    given: ConversionInputs, source: OpenedSource, preprocess: Preprocess | None, work: Path
) -> Path | None:
    """Return the .npz of labelled inputs for the worker: the user's own, or one of decoded pictures."""
    place = given.evaluate
    if place is None or place.suffix == ".npz":
        if place is not None and not place.is_file():
            raise InputError(f"{place} does not exist", "pass a folder of labelled pictures or an .npz")
        return place
    labelled = find_labelled(place).spread()
    if preprocess is None:
        raise _no_preprocessing()
    labels = read_labels(given.labels) if given.labels else source.artifact.labels()
    write_evaluation(work / "evaluation.npz", labelled, preprocess, labels)
    return work / "evaluation.npz"


def _no_preprocessing() -> UsageError:
    return UsageError(
        "the preprocessing of the pictures is not known",
        "specify it with --preprocess, or --mean and --scale (see `edge convert --help`)",
    )


_TIMEOUT_S = 3600.0


_SEED = "its samples must be reproducible: seed its random numbers, and sort the contents of folders and sets"


def described(where: str) -> str:
    """Return the note that the user sees before the code `where` runs."""
    return f"calibration samples come from {where}; its Python code runs twice, to check that they are reproducible"


def write_samples(where: str, place: Path, on_progress: OnProgress | None) -> list[str]:
    """Write the samples that the code yields to the .npz `place`, and return notes for the user.

    Raises InputError if the code fails, yields something that is not a sample, or yields other samples in its second
    run.
    """
    first = _run(where, place, "collecting calibration samples", on_progress)
    second = _run(where, None, "collecting them again", on_progress)
    if first.digest != second.digest:
        raise InputError(f"{where} yielded other samples when it was run again", _SEED)
    if not first.stopped:
        return []
    return [f"the first {first.count} samples of {where} are used: {first.stopped}"]


def _run(where: str, place: Path | None, doing: str, on_progress: OnProgress | None) -> SamplesAnswer:
    job = SamplesJob(where=where, out=place, doing=doing)
    try:
        return run_job(job, module="converters.worker", timeout_s=_TIMEOUT_S, on_progress=on_progress)
    except WorkerCrashedError as error:
        raise WorkerCrashedError(
            f"the code of {where} crashed its process: {error.message}", "run it on its own first"
        ) from None
