"""Make the table's artifacts once, and keep them: build MobileNetV2, convert it, prove each result."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import converters
from converters.mobilenet_v2 import LABELS, Weights, data_folder, find_weights, labels, meaning, preprocess
from converters.staging import ARTIFACT, failed_place, staging
from converters.steps import StepOptions
from edge.progress import Progress
from edge.table import bundle as bundles
from edge.table.bundle import Bundle
from edge.table.pixels import Pictures, collect
from edge.table.recipes import Recipe, with_sources
from edge.workers import Worker
from runtimes import artifact as artifacts
from runtimes.artifact import Artifact, Preprocess
from runtimes.cache import cache_folder
from runtimes.errors import EdgeError, HostError, InputError

# What an artifact's bytes depend on, beside the weights and the calibration pictures.
_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "openvino", "nncf", "ai-edge-litert", "torch")
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Wanted:
    """What the user named: weights, the picture to classify, a folder to calibrate with; None leaves it to the data."""

    weights: Path | None = None
    picture: Path | None = None
    calibration: Path | None = None


def prepare(wanted: Wanted, recipes: Collection[str], quiet: bool = False) -> Bundle:
    """The bundle for `wanted` with the artifacts of `recipes`, from the cache as far as they are there.

    A recipe that cannot be made here (no PyTorch, no published file) is noted in `Bundle.missing`.
    """
    weights = find_weights(wanted.weights)
    pictures, name = collect(wanted.picture, wanted.calibration)
    folder = cache_folder() / "table" / _key(weights, pictures)
    bundle = Bundle(folder, _told(weights), weights.trained, name)
    with _in_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)
    bundle = replace(bundle, missing=_make(bundle, recipes, weights, pictures, quiet))
    with _in_cache(folder):
        bundles.write(bundle, pictures)
    return bundle


@contextmanager
def _in_cache(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "name another cache folder in the environment variable EDGE_CACHE"
        raise HostError(f"{folder} cannot be written: {error.strerror}", hint) from None


def _make(
    bundle: Bundle, recipes: Collection[str], weights: Weights, pictures: Pictures, quiet: bool
) -> dict[str, str]:
    """Make what is not there yet; recipe → reason for what cannot be made."""
    todo = [recipe for recipe in with_sources(recipes) if not bundle.has(recipe.id)]
    missing: dict[str, str] = {}
    if not todo:
        return missing
    with Progress(len(todo), "preparing", quiet=quiet) as bar, _Kitchen(bundle, weights, pictures) as kitchen:
        for recipe in todo:
            bar.note(recipe.id)
            try:
                kitchen.make(recipe)
            except EdgeError as error:
                if not bundle.has(recipe.id):  # as it may, by another `edge table`, meanwhile
                    missing[recipe.id] = error.message + (f" ({error.hint})" if error.hint else "")
            bar.advance(recipe.id)
    return missing


class _Kitchen:
    """Makes one recipe after another in one converter process, so that TensorFlow is imported once."""

    def __init__(self, bundle: Bundle, weights: Weights, pictures: Pictures) -> None:
        self._bundle, self._weights, self._pictures = bundle, weights, pictures
        self._worker = Worker("converters.worker")
        self._scratch = Path(tempfile.mkdtemp(prefix="edge-table-"))

    def __enter__(self) -> _Kitchen:
        np.savez(self._scratch / "calibration.npz", pixels=self._pictures.calibration)
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

    def _convert(self, recipe: Recipe, work: Path) -> None:
        job: dict[str, Any] = {
            "job": "convert",
            "artifact": str(self._model(recipe, work)),
            "steps": list(recipe.steps),
            "format": recipe.format,
            "options": asdict(StepOptions(precision=recipe.precision, io_dtype=_io_dtype(recipe))),
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


def _told(weights: Weights) -> str:
    return "random, seeded" if weights.path is None else f"{weights.path.name}, {weights.classes} classes"


def _key(weights: Weights, pictures: Pictures) -> str:
    """A digest of all that the artifacts depend on, so that a stale cache is never measured."""
    digest = hashlib.sha256(weights.sha256.encode())
    for pixels in (pictures.benchmark, pictures.calibration, pictures.evaluation):
        digest.update(b"-" if pixels is None else pixels.tobytes())
    for path in sorted(Path(converters.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _LIBRARIES:
        digest.update(f"{name} {_version(name)}".encode())
    return digest.hexdigest()[:16]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
