"""The pictures of the table as pixels: the one that is timed, those to quantise with, and those to judge by."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.mobilenet_v2 import data_folder, generated_picture, preprocess
from runtimes.arrays import Array
from runtimes.errors import InputError

GENERATED = "generated"
_GENERATED_COUNT = 32  # to calibrate with where there are no pictures: the times are right, the answers mean nothing


@dataclass(frozen=True)
class Pictures:
    """uint8, RGB, [n, 224, 224, 3]; `truth` holds the ImageNet class (of 1000) of each evaluation picture.

    `reference`, float32 [n, classes], is what float Keras answers to them: all other answers are held against it, on
    a board without Keras too.
    """

    benchmark: Array
    calibration: Array
    evaluation: Array | None = None
    truth: Array | None = None
    reference: Array | None = None


def collect(picture: Path | None, calibration: Path | None) -> tuple[Pictures, str]:
    """The pictures, and the name of the timed one: what was asked for, else the data folder's, else generated ones."""
    data = data_folder()
    folder = data / "imagenet" if data is not None and (data / "imagenet").is_dir() else None
    if picture is None and folder is not None:
        picture = _only(folder / "benchmark")
    if calibration is None and folder is not None:
        calibration = folder / "calibration"
    judged = _evaluation(folder) if folder is not None else (None, None)
    benchmark = _load([picture]) if picture is not None else generated_picture(0)[np.newaxis]
    return Pictures(benchmark, _calibration(calibration), *judged), picture.name if picture is not None else GENERATED


def _calibration(folder: Path | None) -> Array:
    if folder is None:
        return np.stack([generated_picture(seed) for seed in range(1, _GENERATED_COUNT + 1)])
    from edge.pictures import picture_files

    return _load(picture_files(folder))


def _evaluation(folder: Path) -> tuple[Array, Array]:
    """The evaluation pictures and their classes, from `labels.csv` (columns file, class_index_of_1000)."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"].startswith("evaluation/")]
    truth = np.array([int(row["class_index_of_1000"]) for row in rows])
    return _load([folder / row["file"] for row in rows]), truth


def _load(paths: list[Path]) -> Array:
    from edge.pictures import load_all

    return load_all(paths, preprocess("keras"))


def _only(folder: Path) -> Path:
    from edge.pictures import picture_files

    found = picture_files(folder)
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} pictures, not one", "name the picture with --picture")
    return found[0]
