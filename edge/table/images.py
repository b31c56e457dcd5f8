"""Load the table's pictures: the timed picture, the calibration pictures and the evaluation pictures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.table.mobilenet_v2 import data_folder, generated_picture, preprocess
from runtimes.arrays import Array
from runtimes.errors import InputError

GENERATED = "generated"
_GENERATED_COUNT = 32  # for calibration without pictures: times are then valid, predictions meaningless


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures as uint8 RGB [n, 224, 224, 3].

    benchmark: The timed picture.
    calibration: The pictures that int8 models are calibrated with.
    evaluation: The pictures that predictions are compared for; None if there are none.
    truth: The true ImageNet class (of 1000) of each evaluation picture [n].
    reference: Float Keras' probabilities for them, float32 [n, classes]. Stored with the pictures, so that boards
        without Keras are compared with it too.
    """

    benchmark: Array
    calibration: Array
    evaluation: Array | None = None
    truth: Array | None = None
    reference: Array | None = None


def collect(picture: Path | None, calibration: Path | None) -> tuple[Pictures, str]:
    """Load the pictures, and return them with the name of the timed one.

    They are the requested ones, else those of the data folder, else generated ones.
    """
    data = data_folder()
    folder = data / "imagenet" if data is not None and (data / "imagenet").is_dir() else None
    if picture is None and folder is not None:
        picture = _only_picture(folder / "benchmark")
    if calibration is None and folder is not None:
        calibration = folder / "calibration"
    evaluation, truth = _evaluation(folder) if folder is not None else (None, None)
    benchmark = _load([picture]) if picture is not None else generated_picture(0)[np.newaxis]
    pictures = Pictures(benchmark=benchmark, calibration=_calibration(calibration), evaluation=evaluation, truth=truth)
    return pictures, picture.name if picture is not None else GENERATED


def _calibration(folder: Path | None) -> Array:
    if folder is None:
        return np.stack([generated_picture(seed) for seed in range(1, _GENERATED_COUNT + 1)])
    from edge.inference.images import find_pictures

    return _load(find_pictures(folder))


def _evaluation(folder: Path) -> tuple[Array, Array]:
    """Load the evaluation pictures and their classes, from `labels.csv` (columns file, class_index_of_1000)."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"].startswith("evaluation/")]
    truth = np.array([int(row["class_index_of_1000"]) for row in rows])
    return _load([folder / row["file"] for row in rows]), truth


def _load(paths: list[Path]) -> Array:
    from edge.inference.images import load_all

    return load_all(paths, preprocess("keras"))


def _only_picture(folder: Path) -> Path:
    from edge.inference.images import find_pictures

    files = find_pictures(folder)
    if len(files) != 1:
        raise InputError(f"{folder} holds {len(files)} pictures, not one", "name the picture with --picture")
    return files[0]
