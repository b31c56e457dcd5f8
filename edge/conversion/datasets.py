"""Read the data that users pass to a conversion: calibration inputs, and labeled inputs to measure accuracy on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.calibration.dataset import MAX_SAMPLES, PIXELS
from converters.calibration.generator import is_reference
from converters.pipeline.request import MAX_DROP, SamplesAnswer, SamplesJob
from converters.sources.source import OpenedSource
from edge.evaluation.accuracy import CLASSES, ROWS
from edge.evaluation.labeled_inputs import indices_of
from edge.evaluation.labeled_pictures import LabeledPictures, find_labeled
from edge.inference.images import find_pictures, load_all
from edge.inference.preprocessing import PreprocessOptions
from edge.workers.process import OnProgress, run_job
from runtimes.arrays import save_arrays
from runtimes.artifact import Preprocess
from runtimes.artifact.labels import read_labels
from runtimes.errors import InputError, UsageError, WorkerCrashedError

_TIMEOUT_S = 3600.0
_SEED = "its samples must be reproducible: seed its random numbers, and sort the contents of folders and sets"
MAX_PICTURES = 2000  # decoded at 224 × 224 they take 300 MB; they give an accuracy to within 1 %


def write_evaluation(
    place: Path, labeled: LabeledPictures, preprocess: Preprocess, labels: Sequence[str] | None
) -> None:
    """Write the decoded pictures and their classes to an `.npz` file for `edge.evaluation.accuracy`.

    `labels` are the model's labels, one for each row of its output. Raises InputError for a class not among them.
    """
    if all(one.isdecimal() for one in labeled.classes):
        numbers = {CLASSES: np.array([int(one) for one in labeled.classes])}
    else:
        numbers = {ROWS: np.array(indices_of(labeled.classes, dict(enumerate(labels or ()))))}
    save_arrays(place, {PIXELS: load_all(labeled.pictures, preprocess), **numbers})


@dataclass(frozen=True, kw_only=True)
class ConversionInputs:
    """The data that the user passes with the model.

    calibration: A folder of pictures, an .npz, or "module:callable" for the user's own code.
    labels: A file with one label per line.
    preprocess_options: How pictures become the model's input.
    kind: What the numbers of the output are, such as "probability".
    label_offset: The row of the output that belongs to class 0.
    evaluate: Labeled inputs, as for `edge.evaluate`; for classifiers also an .npz.
    max_drop: By how much the accuracy on `evaluate` may fall, 0 to 1: top-1, mAP, mean IoU or OKS.
    task: The task's id.
    rate: The samples per second of the sound that the model takes.
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
    rate: int | None = None
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
    paths = find_pictures(calibration)
    if preprocess is None:
        raise _no_preprocessing()
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_SAMPLES)).astype(int)]
    save_arrays(place, {PIXELS: load_all(chosen, preprocess)})
    return place, []


def evaluation_inputs(
    given: ConversionInputs, source: OpenedSource, preprocess: Preprocess | None, work: Path
) -> Path | None:
    """Return the .npz of labeled inputs for the worker: the user's own, or one of decoded pictures."""
    place = given.evaluate
    if place is None or place.suffix == ".npz":
        if place is not None and not place.is_file():
            raise InputError(f"{place} does not exist", "pass a folder of labeled pictures or an .npz")
        return place
    labeled = find_labeled(place).spread(MAX_PICTURES)
    if preprocess is None:
        raise _no_preprocessing()
    labels = read_labels(given.labels) if given.labels else source.artifact.labels()
    write_evaluation(work / "evaluation.npz", labeled, preprocess, labels)
    return work / "evaluation.npz"


def _no_preprocessing() -> UsageError:
    return UsageError(
        "the preprocessing of the pictures is not known",
        "specify it with --preprocess, or --mean and --scale (see `edge convert --help`)",
    )


def describe_code(where: str) -> str:
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
