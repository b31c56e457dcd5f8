"""Build the table's artifacts: build MobileNetV2, convert and verify it, and run float Keras as a reference."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.options import ConvertOptions
from converters.pipeline.request import ConvertRequest
from converters.pipeline.staging import ARTIFACT, failed_path, staging
from converters.registry import options_type
from edge.table.bundle import Bundle
from edge.table.mobilenet_v2 import LABELS, WeightsOrigin, data_folder, labels, meaning, preprocess
from edge.table.recipes import Recipe
from edge.table.worker import BuildJob, LogitHeadJob
from edge.workers.process import Worker
from runtimes import artifact as artifacts
from runtimes.arrays import Array, load_arrays, save_arrays
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import InputError
from runtimes.jobs import RunJob
from runtimes.tensors import pixels_to_input

REFERENCE = "keras-fp32"  # the artifact that all others are compared with
_TIMEOUT_S = 600.0


class ArtifactBuilder:
    """Builds the artifacts of recipes in a single converter process, so that TensorFlow is imported once."""

    def __init__(self, bundle: Bundle, weights: WeightsOrigin) -> None:
        self._bundle, self._weights = bundle, weights
        self._worker = Worker("edge.table.worker")
        self._scratch = Path(tempfile.mkdtemp(prefix="edge-table-"))

    def __enter__(self) -> ArtifactBuilder:
        np.savez(self._scratch / "calibration.npz", pixels=self._bundle.pictures.calibration)
        (self._scratch / LABELS).write_text("\n".join(labels(self._weights)) + "\n", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def make(self, recipe: Recipe) -> None:
        """Build one artifact. Raises an EdgeError if it cannot be built."""
        with staging(self._bundle.folder(recipe.id)) as work:
            if recipe.format == "edgetpu":
                self._adopt_compiled(recipe, work / ARTIFACT)
            elif recipe.steps == ("logit_head",):
                self._worker.run(LogitHeadJob(str(self._source(recipe)), str(work / ARTIFACT)), timeout_s=_TIMEOUT_S)
            else:
                self._convert(recipe, work)

    def reference(self) -> Array | None:
        """Return float Keras' outputs for the evaluation pictures, float32 [n, classes], cached next to the artifacts.

        None if there are no evaluation pictures, no Keras artifact, or only random weights.
        """
        pixels = self._bundle.pictures.evaluation
        if pixels is None or not self._weights.trained or not self._bundle.has(REFERENCE):
            return None
        place = self._bundle.path / f"answers-{hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}.npz"
        if not place.is_file():
            answers = self._ask(self._bundle.artifact(REFERENCE), pixels)
            # Renamed into place, because two tables may be prepared at the same time.
            part = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.copyfile(answers, part)
            part.replace(place)
        (values,) = load_arrays(place).values()
        return values.reshape(len(values), -1)

    def _ask(self, artifact: Artifact, pixels: Array) -> Path:
        inputs, outputs = self._scratch / "evaluation.npz", self._scratch / "answers.npz"
        spec, chosen = artifact.manifest.inputs[0], artifact.manifest.preprocess
        assert chosen is not None  # `_with_meaning` sets it
        feeds = np.stack([pixels_to_input(picture, spec, chosen) for picture in pixels])
        save_arrays(inputs, {spec.name: feeds})
        self._worker.run(RunJob(str(artifact.path), str(inputs), str(outputs)), timeout_s=_TIMEOUT_S)
        return outputs

    def _convert(self, recipe: Recipe, work: Path) -> None:
        options = ConvertOptions(precision=recipe.precision, io_dtype=_io_dtype(recipe), release=recipe.release)
        request = ConvertRequest(
            source=self._model(recipe, work),
            steps=recipe.steps,
            format=recipe.format,
            options=options_type(recipe.steps).of(options),
            out=work / ARTIFACT,
            scratch=work,
            samples=self._scratch / "calibration.npz",
            kept=str(failed_path(self._bundle.folder(recipe.id))),
        )
        request = request if recipe.source else self._with_meaning(request, recipe)
        self._worker.run(request, timeout_s=_TIMEOUT_S)

    def _model(self, recipe: Recipe, work: Path) -> Path:
        """Return the model that the recipe starts from: an artifact, a published file, or a newly built network."""
        if recipe.source is not None:
            return self._source(recipe)
        if recipe.file is not None:
            return _find_published(recipe.file)
        build = work / "build"
        build.mkdir()
        weights = str(self._weights.path) if self._weights.path else None
        assert recipe.framework is not None  # a recipe names where it starts
        job = BuildJob(framework=recipe.framework, weights=weights, out=str(build))
        return Path(self._worker.run(job, timeout_s=_TIMEOUT_S).model)

    def _with_meaning(self, request: ConvertRequest, recipe: Recipe) -> ConvertRequest:
        """Add the preprocessing and the meaning of the output to the request."""
        known = meaning(self._weights)
        chosen = preprocess(recipe.framework) if recipe.framework else _raw_pixels()
        label_file = self._scratch / LABELS
        offset = known.label_offset
        if recipe.file is not None:  # Google's files have a background class, whether or not our weights have one
            label_file, offset = self._scratch / "labels_1001.txt", 1
            names = labels(replace(self._weights, classes=1001))
            label_file.write_text("\n".join(names) + "\n", encoding="utf-8")
        return replace(request, preprocess=chosen, kind="probability", label_offset=offset, labels=label_file)

    def _source(self, recipe: Recipe) -> Path:
        assert recipe.source is not None
        if not self._bundle.has(recipe.source):
            raise InputError(f"it is converted from {recipe.source}, which could not be built")
        return self._bundle.folder(recipe.source)

    def _adopt_compiled(self, recipe: Recipe, out: Path) -> None:
        """Write the artifact of a published Edge TPU file, with the self-check of the file it was compiled from."""
        assert recipe.file is not None
        source = Artifact.open(self._bundle.folder("tflite-2019"))
        model = _find_published(recipe.file)
        shutil.copyfile(model, out / model.name)
        shutil.copyfile(source.path / LABELS, out / LABELS)
        manifest = replace(source.manifest, name=model.stem, format="edgetpu", model=model.name, files={})
        artifacts.write(out, manifest, *source.selfcheck())


def _find_published(file: Path) -> Path:
    data = data_folder()
    if data is None or not (data / file).is_file():
        raise InputError(f"{file.name} is not on this machine", f"set EDGE_DATA to a folder that has {file}")
    return data / file


def _io_dtype(recipe: Recipe) -> str | None:
    """Return the dtype of inputs and outputs: uint8 for int8 models, as in the published setups."""
    return "uint8" if recipe.format == "tflite" and recipe.precision == "int8" and recipe.steps else None


def _raw_pixels() -> Preprocess:
    """Undo scale 1/128 and zero point 128 in mean and scale: Google's uint8 files take pixels unscaled."""
    return replace(preprocess("keras"), mean=(128.0,) * 3, scale=(1 / 128,) * 3)
