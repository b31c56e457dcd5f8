"""Make the table's artifacts: build MobileNetV2, convert it, prove each result, ask float Keras for its answers."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.mobilenet_v2 import LABELS, Weights, data_folder, labels, meaning, preprocess
from converters.staging import ARTIFACT, failed_place, staging
from converters.steps import StepOptions
from edge.table.bundle import Bundle
from edge.table.recipes import Recipe
from edge.workers import Worker
from runtimes import artifact as artifacts
from runtimes.arrays import Array, load_arrays
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import InputError
from runtimes.tensors import pixels_to_input
from runtimes.worker import save_arrays

REFERENCE = "keras-fp32"  # the artifact whose answers all others are held against
_TIMEOUT_S = 600.0


class Kitchen:
    """Makes one recipe after another in one converter process, so that TensorFlow is imported once."""

    def __init__(self, bundle: Bundle, weights: Weights) -> None:
        self._bundle, self._weights = bundle, weights
        self._worker = Worker("converters.worker")
        self._scratch = Path(tempfile.mkdtemp(prefix="edge-table-"))

    def __enter__(self) -> Kitchen:
        np.savez(self._scratch / "calibration.npz", pixels=self._bundle.pictures.calibration)
        (self._scratch / LABELS).write_text("\n".join(labels(self._weights)) + "\n", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def make(self, recipe: Recipe) -> None:
        """Make one artifact; raises the EdgeError that says why it cannot be made."""
        with staging(self._bundle.folder(recipe.id)) as work:
            if recipe.format == "edgetpu":
                self._adopt_compiled(recipe, work / ARTIFACT)
            elif recipe.steps == ("logit_head",):
                self._run({"job": "logit_head", "artifact": str(self._source(recipe)), "out": str(work / ARTIFACT)})
            else:
                self._convert(recipe, work)

    def reference(self) -> Array | None:
        """What float Keras answers to the evaluation pictures, float32 [n, classes], kept beside the artifacts.

        None where there is nothing to ask, or nothing to learn from random weights.
        """
        pixels = self._bundle.pictures.evaluation
        if pixels is None or not self._weights.trained or not self._bundle.has(REFERENCE):
            return None
        place = self._bundle.path / f"answers-{hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}.npz"
        if not place.is_file():
            answers = self._ask(self._bundle.artifact(REFERENCE), pixels)
            # Renamed into its place: two tables may be prepared at once.
            part = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.copyfile(answers, part)
            part.replace(place)
        (values,) = load_arrays(place).values()
        return values.reshape(len(values), -1)

    def _ask(self, artifact: Artifact, pixels: Array) -> Path:
        inputs, outputs = self._scratch / "evaluation.npz", self._scratch / "answers.npz"
        spec, chosen = artifact.manifest.inputs[0], artifact.manifest.preprocess
        assert chosen is not None  # as `_what_it_means` wrote it
        feeds = np.stack([pixels_to_input(picture, spec, chosen) for picture in pixels])
        save_arrays(inputs, {spec.name: feeds})
        self._run({"job": "run", "artifact": str(artifact.path), "inputs": str(inputs), "outputs": str(outputs)})
        return outputs

    def _convert(self, recipe: Recipe, work: Path) -> None:
        options = StepOptions(recipe.precision, io_dtype=_io_dtype(recipe), release=recipe.release)
        job: dict[str, Any] = {
            "job": "convert",
            "artifact": str(self._model(recipe, work)),
            "steps": list(recipe.steps),
            "format": recipe.format,
            "options": asdict(options),
            "out": str(work / ARTIFACT),
            "scratch": str(work),
            "samples": str(self._scratch / "calibration.npz"),
            "kept": str(failed_place(self._bundle.folder(recipe.id))),
        }
        if recipe.source is None:
            job |= self._what_it_means(recipe)
        self._run(job)

    def _model(self, recipe: Recipe, work: Path) -> Path:
        """Where the recipe starts: another artifact, a published file, or a network built from the weights."""
        if recipe.source is not None:
            return self._source(recipe)
        if recipe.file is not None:
            return _published(recipe.file)
        build = work / "build"
        build.mkdir()
        weights = str(self._weights.path) if self._weights.path else None
        job = {"job": "build", "framework": recipe.framework, "weights": weights, "out": str(build)}
        return Path(self._run(job)["model"])

    def _what_it_means(self, recipe: Recipe) -> dict[str, Any]:
        known = meaning(self._weights)
        chosen = preprocess(recipe.framework) if recipe.framework else _raw_pixels()
        label_file = self._scratch / LABELS
        offset = known.label_offset
        if recipe.file is not None:  # Google's files have a background class, whatever our weights have
            label_file, offset = self._scratch / "labels_1001.txt", 1
            names = labels(replace(self._weights, classes=1001))
            label_file.write_text("\n".join(names) + "\n", encoding="utf-8")
        return {
            "preprocess": asdict(chosen),
            "kind": "probability",
            "label_offset": offset,
            "labels": str(label_file),
        }

    def _source(self, recipe: Recipe) -> Path:
        assert recipe.source is not None
        if not self._bundle.has(recipe.source):
            raise InputError(f"it is made from {recipe.source}, which could not be made")
        return self._bundle.folder(recipe.source)

    def _adopt_compiled(self, recipe: Recipe, out: Path) -> None:
        """A file that the Edge TPU compiler made: its self-check is what the file that it was made from answers."""
        assert recipe.file is not None
        source = Artifact.open(self._bundle.folder("tflite-2019"))
        model = _published(recipe.file)
        shutil.copyfile(model, out / model.name)
        shutil.copyfile(source.path / LABELS, out / LABELS)
        manifest = replace(source.manifest, name=model.stem, format="edgetpu", model=model.name, files={})
        artifacts.write(out, manifest, *source.selfcheck())

    def _run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        return self._worker.run(job, timeout_s=_TIMEOUT_S)


def _published(file: Path) -> Path:
    data = data_folder()
    if data is None or not (data / file).is_file():
        raise InputError(f"{file.name} is not here", "set EDGE_DATA to the folder with the project's data")
    return data / file


def _io_dtype(recipe: Recipe) -> str | None:
    """Pixels go in and steps come out as bytes, as in the published setups."""
    return "uint8" if recipe.format == "tflite" and recipe.precision == "int8" and recipe.steps else None


def _raw_pixels() -> Preprocess:
    """Google's uint8 files take pixels as they are: scale 1/128 and zero point 128 undo this mean and scale."""
    return replace(preprocess("keras"), mean=(128.0,) * 3, scale=(1 / 128,) * 3)
