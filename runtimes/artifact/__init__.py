"""An artifact: a folder with the plain model file, `manifest.json` and `selfcheck.npz`.

The model file keeps its usual name, so other tools can open it. A bare model file also counts as an artifact,
one whose manifest contains only the format.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping

import numpy as np

from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact.labels import read_labels
from runtimes.artifact.manifest import (
    REWRITE,
    Join,
    Manifest,
    OutputMeaning,
    Preprocess,
    Quantization,
    TaskStatement,
    TensorSpec,
)
from runtimes.artifact.self_check import SelfCheck
from runtimes.errors import InputError
from runtimes.model_files.detect import FORMATS, format_of
from runtimes.standalone.receive import digest_of, tree_digest

__all__ = [
    "Artifact",
    "Join",
    "Manifest",
    "OutputMeaning",
    "Preprocess",
    "Quantization",
    "SelfCheck",
    "TaskStatement",
    "TensorSpec",
    "sha256",
]

MANIFEST = "manifest.json"
SELFCHECK = "selfcheck.npz"
_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_SELFCHECK_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Artifact:
    """A model on disk and its manifest. `path` is the artifact's folder, or the parent folder of a bare model file."""

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The path that engines open: a file, or a folder for formats such as SavedModel."""
        return self.path / self.manifest.model

    @property
    def is_bare(self) -> bool:
        """Whether this is only a model file, without digests and self-check."""
        return not self.manifest.files

    @property
    def keeps_state(self) -> bool:
        """Whether the model is known to keep a state from one inference to the next."""
        rule = self.manifest.selfcheck
        return bool(self.manifest.states) or (rule is not None and rule.stateful)

    @classmethod
    def open(cls, path: Path) -> Artifact:
        """Open an artifact folder or a bare model file. Raises InputError if it is neither."""
        if not path.exists():
            raise InputError(f"{path} does not exist", "give an artifact folder or a model file")
        if path.name == MANIFEST:
            path = path.parent
        if (path / MANIFEST).is_file():
            return cls._read(path)
        model_format = format_of(path)
        return cls(path.parent, Manifest(name=path.stem, format=model_format, precision="unknown", model=path.name))

    @classmethod
    def _read(cls, folder: Path) -> Artifact:
        document = folder / MANIFEST
        if document.stat().st_size > _MAX_MANIFEST_BYTES:
            raise InputError(f"{document} has more than the {_MAX_MANIFEST_BYTES >> 20} MiB that edge reads", REWRITE)
        manifest = Manifest.from_json(document.read_text(encoding="utf-8", errors="replace"), str(document))
        names = [manifest.model, *manifest.files]
        if manifest.output and manifest.output.labels:
            names.append(manifest.output.labels)
        for name in names:
            _check_confined(folder, name)
        return cls(folder, manifest)

    def verify_digests(self) -> None:
        """Check every file's sha256. Raises InputError for the first file that differs or is missing."""
        for name, digest in sorted(self.manifest.files.items()):
            path = self.path / name
            if not path.is_file():
                raise InputError(f"{path} is missing from the artifact", REWRITE)
            if sha256(path) != digest:
                raise InputError(f"{path} has changed since the artifact was written", REWRITE)

    def model_files(self) -> list[Path]:
        """Return the files of the model itself, without self-check and labels, sorted.

        Raises InputError for a bare model that refers to files outside its folder.
        """
        model = self.model
        if model.is_dir():
            return sorted(path for path in model.rglob("*") if path.is_file())
        if self.is_bare:
            further = (model.parent / name for name in FORMATS[self.manifest.format].further_files(model))
            return sorted([model, *(path for path in further if path.is_file())])
        others = {SELFCHECK, self.manifest.output.labels if self.manifest.output else None}
        return sorted(self.path / name for name in self.manifest.files if name not in others)

    def model_sha256(self) -> str:
        """Return the sha256 of the model file, or the digest of names and contents if the model is several files.

        Files in the manifest are not read: call `verify_digests` before, unless they have just been written.
        """
        if self.model.is_dir():
            return sha256(self.model)
        files = {path.relative_to(self.path).as_posix(): path for path in self.model_files()}
        if len(files) > 1:
            return digest_of(files.items(), self.manifest.files)
        return self.manifest.files.get(self.manifest.model) or sha256(self.model)

    def labels(self) -> list[str] | None:
        """Return the label of each class of the first output, or None if the artifact has no labels."""
        if self.manifest.output is None or self.manifest.output.labels is None:
            return None
        return read_labels(self.path / self.manifest.output.labels, hint=REWRITE)

    def selfcheck(self) -> tuple[Arrays, Arrays]:
        """Return the stored model inputs, and the source's dequantized outputs.

        The samples of each array are stacked on a new first axis: {input name: [n, *shape]}.
        """
        path = self.path / SELFCHECK
        if not path.is_file():
            raise InputError(f"{self.model} has no self-check", REWRITE)
        arrays = load_arrays(path, _MAX_SELFCHECK_BYTES, REWRITE)
        return _part(arrays, "input"), _part(arrays, "output")


def write(folder: Path, manifest: Manifest, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Artifact:
    """Write the self-check, file digests and manifest of an artifact whose model files are in `folder`.

    `inputs` and `outputs` have the form of `Artifact.selfcheck`. Deterministic: the same content yields the same bytes.
    """
    arrays = {
        **{f"input:{k}": v for k, v in inputs.items()},
        **{f"output:{k}": v for k, v in outputs.items()},
    }
    np.savez_compressed(folder / SELFCHECK, **arrays)  # type: ignore[arg-type] # numpy's stubs see allow_pickle
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = replace(manifest, files={path.relative_to(folder).as_posix(): sha256(path) for path in files})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact(folder, manifest)


def sha256(path: Path) -> str:
    """Return the hex digest of a file, read in chunks; of a folder, that of the names and contents of its files."""
    if path.is_dir():
        return tree_digest(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _check_confined(folder: Path, name: str) -> None:
    """Resolve a path of the manifest, which is untrusted: no path may leave the artifact's folder."""
    resolved, root = (folder / name).resolve(), folder.resolve()
    if root not in resolved.parents:
        raise InputError(
            f"{folder / MANIFEST} names '{name}', which is outside the artifact", "do not use this artifact"
        )


def _part(arrays: Arrays, kind: str) -> Arrays:
    return {name[len(kind) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{kind}:")}
