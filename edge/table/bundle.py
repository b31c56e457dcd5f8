"""The folder with everything that the table measures: artifacts, pixels, and `bundle.json`.

The artifacts of a bundle are in the cache; `edge table --export` copies them and adds the rest, and a board measures
that folder with `--from`, without converting.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np

from edge.table.images import Pictures
from edge.table.recipes import RECIPES
from runtimes.arrays import load_arrays
from runtimes.artifact import MANIFEST, Artifact
from runtimes.artifact.json_fields import Fields
from runtimes.errors import HostError, InputError, UsageError

SCHEMA = 1
_DOCUMENT = "bundle.json"
_PIXELS = "pixels.npz"
_HINT = "write it again with `edge table --export DIR`"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The artifacts to measure, and their input pictures.

    path: The folder of the artifacts.
    weights: A description of the weights.
    trained: False for random weights, whose predictions are meaningless.
    picture: The name of the timed picture.
    pictures: The pictures as pixels.
    missing: Recipe → the reason why its artifact could not be built here.
    """

    path: Path
    weights: str
    trained: bool
    picture: str
    pictures: Pictures
    missing: Mapping[str, str] = field(default_factory=dict)

    def folder(self, recipe: str) -> Path:
        """Return the folder of a recipe's artifact."""
        return self.path / recipe

    def has(self, recipe: str) -> bool:
        """Return whether a recipe's artifact exists."""
        return (self.folder(recipe) / MANIFEST).is_file()

    def artifact(self, recipe: str) -> Artifact:
        """Open a recipe's artifact. Raises InputError if it is missing or broken."""
        return Artifact.open(self.folder(recipe))


def read(folder: Path) -> Bundle:
    """Read the bundle in `folder`. Raises InputError if it is not one."""
    path = folder / _DOCUMENT
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} is not a prepared table: {_DOCUMENT}: {error.strerror}", _HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", _HINT) from None
    fields = Fields(document, str(path), hint=_HINT)
    if fields.integer("schema") != SCHEMA:
        raise fields.reject("schema", f"is {fields.integer('schema')}; this version of edge reads schema {SCHEMA}")
    missing = {name: str(reason) for name, reason in fields.mapping("missing").items()}
    return Bundle(
        path=folder,
        weights=fields.text("weights"),
        trained=fields.flag("trained"),
        picture=fields.text("picture"),
        pictures=_read_pictures(folder),
        missing=missing,
    )


def _read_pictures(folder: Path) -> Pictures:
    arrays = load_arrays(folder / _PIXELS, hint=_HINT)
    missing = [name for name in ("benchmark", "calibration") if name not in arrays]
    unknown = sorted(set(arrays) - {known.name for known in dataclass_fields(Pictures)})
    if missing or unknown:
        raise InputError(f"{folder / _PIXELS} holds {', '.join(sorted(arrays)) or 'nothing'}", _HINT)
    return Pictures(**arrays)


def export(bundle: Bundle, place: Path) -> Path:
    """Write a bundle to `place`, which must not exist or be empty. Raises HostError, and removes it, if that fails."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} exists and is not empty", "choose another folder with --export")
    try:
        for recipe in (recipe for recipe in RECIPES if bundle.has(recipe.id)):
            shutil.copytree(bundle.folder(recipe.id), place / recipe.id)
        _write(bundle, place)
    except OSError as error:  # shutil.Error, too, which has no errno
        shutil.rmtree(place, ignore_errors=True)
        raise HostError(
            f"{place} cannot be written: {error.strerror or error}"[:300], "choose another folder"
        ) from None
    return place


def _write(bundle: Bundle, place: Path) -> None:
    """Write pixels and `bundle.json` next to the artifacts."""
    place.mkdir(parents=True, exist_ok=True)
    arrays = {name: array for name, array in vars(bundle.pictures).items() if array is not None}
    np.savez_compressed(place / _PIXELS, **arrays)
    document = {
        "schema": SCHEMA,
        "weights": bundle.weights,
        "trained": bundle.trained,
        "picture": bundle.picture,
        "missing": dict(bundle.missing),
    }
    (place / _DOCUMENT).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
