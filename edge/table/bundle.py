"""Everything that the table measures, in one folder: artifacts, pixels, and `bundle.json`.

The artifacts of a bundle lie in the cache; `edge table --export` copies them and adds the rest, and a board measures
that folder with `--from` without converting.
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

from edge.table.pixels import Pictures
from edge.table.recipes import RECIPES
from runtimes.arrays import load_arrays
from runtimes.artifact import MANIFEST, Artifact
from runtimes.errors import HostError, InputError, UsageError
from runtimes.fields import Fields

SCHEMA = 1
_DOCUMENT = "bundle.json"
_PIXELS = "pixels.npz"
_HINT = "write it again with `edge table --export DIR`"


@dataclass(frozen=True)
class Bundle:
    """What is measured: the artifacts in `path`, and the pictures that they are fed.

    `trained` is false for random weights, whose answers mean nothing; `picture` names the timed one. `missing` maps
    the recipes that could not be made here to the reason.
    """

    path: Path
    weights: str
    trained: bool
    picture: str
    pictures: Pictures
    missing: Mapping[str, str] = field(default_factory=dict)

    def folder(self, recipe: str) -> Path:
        """Where the artifact of a recipe lies."""
        return self.path / recipe

    def has(self, recipe: str) -> bool:
        """Whether the artifact of a recipe is there."""
        return (self.folder(recipe) / MANIFEST).is_file()

    def artifact(self, recipe: str) -> Artifact:
        """The artifact of a recipe; InputError when it is not there or broken."""
        return Artifact.open(self.folder(recipe))


def read(folder: Path) -> Bundle:
    """The bundle in `folder`; InputError when it is none."""
    path = folder / _DOCUMENT
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} holds no prepared table: {_DOCUMENT}: {error.strerror}", _HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", _HINT) from None
    fields = Fields(document, str(path))
    if fields.whole("schema") != SCHEMA:
        raise fields.reject("schema", f"is {fields.whole('schema')}; this edge reads schema {SCHEMA}")
    trained = fields.value("trained")
    if not isinstance(trained, bool):
        raise fields.reject("trained", "is neither true nor false")
    missing = {name: str(reason) for name, reason in fields.mapping("missing").items()}
    return Bundle(folder, fields.text("weights"), trained, fields.text("picture"), _read_pictures(folder), missing)


def _read_pictures(folder: Path) -> Pictures:
    arrays = load_arrays(folder / _PIXELS, hint=_HINT)
    missing = [name for name in ("benchmark", "calibration") if name not in arrays]
    unknown = sorted(set(arrays) - {known.name for known in dataclass_fields(Pictures)})
    if missing or unknown:
        raise InputError(f"{folder / _PIXELS} holds {', '.join(sorted(arrays)) or 'nothing'}", _HINT)
    return Pictures(**arrays)


def export(bundle: Bundle, place: Path) -> Path:
    """Write a bundle to `place`, which must not exist or be empty; HostError, and nothing left, where it cannot be."""
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
    """Write pixels and `bundle.json` beside the artifacts."""
    place.mkdir(parents=True, exist_ok=True)
    arrays = {name: array for name, array in vars(bundle.pictures).items() if array is not None}
    np.savez_compressed(place / _PIXELS, **arrays)
    told = {"weights": bundle.weights, "trained": bundle.trained, "picture": bundle.picture}
    document = {"schema": SCHEMA, **told, "missing": dict(bundle.missing)}
    (place / _DOCUMENT).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
