"""Everything that the table measures, in one folder: artifacts, pixels, and `bundle.json`.

The cache holds bundles, `edge table --export` copies one, and a board measures it with `--from` without converting.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.table.pixels import Pictures
from runtimes.arrays import Array, load_arrays
from runtimes.artifact import MANIFEST, Artifact
from runtimes.errors import HostError, InputError, UsageError
from runtimes.fields import Fields

SCHEMA = 1
_DOCUMENT = "bundle.json"
_HINT = "write it again with `edge table --export DIR`"


@dataclass(frozen=True)
class Bundle:
    """A prepared folder.

    `trained` is false for random weights, whose answers mean nothing. `missing` maps the recipes that could not be
    made here to the reason.
    """

    path: Path
    weights: str
    trained: bool
    picture: str
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

    def pictures(self) -> Pictures:
        """The picture of the published protocol, and the labelled ones that answers are judged by."""
        arrays = load_arrays(self.path / "pixels.npz", hint=_HINT)
        return Pictures(
            benchmark=_pixels(arrays, "benchmark"),
            calibration=_pixels(arrays, "calibration"),
            evaluation=arrays.get("evaluation"),
            truth=arrays.get("truth"),
        )


def write(bundle: Bundle, pictures: Pictures) -> None:
    """Write pixels and `bundle.json`; the artifacts lie beside them."""
    arrays = {name: array for name, array in vars(pictures).items() if array is not None}
    with _whole(bundle.path / "pixels.npz") as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    document = {"schema": SCHEMA, **{key: value for key, value in asdict(bundle).items() if key != "path"}}
    with _whole(bundle.path / _DOCUMENT) as part:
        part.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write that then becomes `path`: whoever reads meanwhile finds the old one or the new one, whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
    return Bundle(folder, fields.text("weights"), trained, fields.text("picture"), missing)


def export(bundle: Bundle, place: Path) -> Path:
    """Copy a bundle to `place`, which must not exist or be empty."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} exists and is not empty", "choose another folder with --export")
    unfinished = shutil.ignore_patterns(".*", "*.failed")
    try:
        shutil.copytree(bundle.path, place, dirs_exist_ok=True, ignore=unfinished)
    except OSError as error:  # shutil.Error, too, which has no errno
        shutil.rmtree(place, ignore_errors=True)
        raise HostError(
            f"{place} cannot be written: {error.strerror or error}"[:300], "choose another folder"
        ) from None
    return place


def _pixels(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise InputError(f"pixels.npz holds no '{name}'", _HINT)
    return arrays[name]
