"""Prepare the table: weights, pictures and artifacts, from the cache as far as they are there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import converters
from converters.mobilenet_v2 import Weights, find_weights
from edge.progress import Progress
from edge.table.bundle import Bundle
from edge.table.kitchen import Kitchen
from edge.table.pixels import Pictures, collect
from edge.table.recipes import with_sources
from runtimes.cache import cache_folder
from runtimes.errors import EdgeError, HostError

# What an artifact's bytes depend on, beside the weights and the calibration pictures.
_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "openvino", "nncf", "ai-edge-litert", "torch")


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        bundle = Bundle(folder, _told(weights), weights.trained, name, pictures)
        with Kitchen(bundle, weights) as kitchen:
            missing = _make(bundle, recipes, kitchen, quiet)
            pictures = replace(pictures, reference=kitchen.reference())
    except OSError as error:
        hint = "name another cache folder in the environment variable EDGE_CACHE"
        raise HostError(f"{folder} cannot be written: {error.strerror}", hint) from None
    return replace(bundle, missing=missing, pictures=pictures)


def _make(bundle: Bundle, recipes: Collection[str], kitchen: Kitchen, quiet: bool) -> dict[str, str]:
    """Make what is not there yet; recipe → reason for what cannot be made."""
    todo = [recipe for recipe in with_sources(recipes) if not bundle.has(recipe.id)]
    missing: dict[str, str] = {}
    if not todo:
        return missing
    with Progress(len(todo), "preparing", quiet=quiet) as bar:
        for recipe in todo:
            bar.note(recipe.id)
            try:
                kitchen.make(recipe)
            except EdgeError as error:
                if not bundle.has(recipe.id):  # as it may, by another `edge table`, meanwhile
                    missing[recipe.id] = error.message + (f" ({error.hint})" if error.hint else "")
            bar.advance(recipe.id)
    return missing


def _told(weights: Weights) -> str:
    return "random, seeded" if weights.path is None else f"{weights.path.name}, {weights.classes} classes"


def _key(weights: Weights, pictures: Pictures) -> str:
    """A digest of all that the artifacts depend on, so that a stale cache is never measured."""
    digest = hashlib.sha256(weights.sha256.encode())
    digest.update(pictures.calibration.tobytes())
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
