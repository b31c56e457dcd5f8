"""Prepare the table's weights, pictures and artifacts, using the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import converters
from edge.console.progress import ProgressBar
from edge.table.build_artifacts import ArtifactBuilder
from edge.table.bundle import Bundle
from edge.table.images import Pictures, collect
from edge.table.mobilenet_v2 import WeightsOrigin, find_weights
from edge.table.recipes import with_sources
from runtimes.errors import EdgeError, HostError
from runtimes.host.files import cache_folder

# What an artifact's bytes depend on, in addition to the weights and the calibration pictures.
_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "openvino", "nncf", "ai-edge-litert", "torch")


@dataclass(frozen=True, kw_only=True)
class ChosenFiles:
    """The files that the user chose; None uses the data folder's.

    weights: The weights file.
    picture: The timed picture.
    calibration: The folder of calibration pictures.
    """

    weights: Path | None = None
    picture: Path | None = None
    calibration: Path | None = None


def prepare(wanted: ChosenFiles, recipes: Collection[str], quiet: bool = False) -> Bundle:
    """Return the bundle for `wanted` with the artifacts of `recipes`, built unless they are in the cache.

    A recipe that cannot be built here (no PyTorch, no published file) is recorded in `Bundle.missing`.
    """
    weights = find_weights(wanted.weights)
    pictures, name = collect(wanted.picture, wanted.calibration)
    folder = cache_folder() / "table" / _key(weights, pictures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        bundle = Bundle(
            path=folder, weights=_describe_weights(weights), trained=weights.trained, picture=name, pictures=pictures
        )
        with ArtifactBuilder(bundle, weights) as builder:
            missing = _make(bundle, recipes, builder, quiet)
            pictures = replace(pictures, reference=builder.reference())
    except OSError as error:
        hint = "name another cache folder in the environment variable EDGE_CACHE"
        raise HostError(f"{folder} cannot be written: {error.strerror}", hint) from None
    return replace(bundle, missing=missing, pictures=pictures)


def _make(bundle: Bundle, recipes: Collection[str], builder: ArtifactBuilder, quiet: bool) -> dict[str, str]:
    """Build the missing artifacts; return recipe → reason for those that cannot be built."""
    todo = [recipe for recipe in with_sources(recipes) if not bundle.has(recipe.id)]
    missing: dict[str, str] = {}
    if not todo:
        return missing
    with ProgressBar(len(todo), "preparing", quiet=quiet) as bar:
        for recipe in todo:
            bar.note(recipe.id)
            try:
                builder.make(recipe)
            except EdgeError as error:
                if not bundle.has(recipe.id):  # another `edge table` may have built it meanwhile
                    missing[recipe.id] = error.message + (f" ({error.hint})" if error.hint else "")
            bar.advance(recipe.id)
    return missing


def _describe_weights(weights: WeightsOrigin) -> str:
    return "random, seeded" if weights.path is None else f"{weights.path.name}, {weights.classes} classes"


def _key(weights: WeightsOrigin, pictures: Pictures) -> str:
    """Return a digest of everything that the artifacts depend on, so that a stale cache is never measured."""
    digest = hashlib.sha256(weights.sha256.encode())
    digest.update(pictures.calibration.tobytes())
    here = Path(__file__).parent
    sources = [*Path(converters.__file__).parent.rglob("*.py"), *(here / "mobilenet_v2").rglob("*.py")]
    for path in sorted([*sources, here / "logit_head.py"]):
        digest.update(path.read_bytes())
    for name in _LIBRARIES:
        digest.update(f"{name} {_version(name)}".encode())
    return digest.hexdigest()[:16]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
