"""An artifact: a folder with the plain model file, `manifest.json` and `selfcheck.npz`.

The model file keeps its usual name, so every other tool can open it. A bare model file is an artifact
too: one whose manifest says nothing but its format.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping

import numpy as np

from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.errors import InputError
from runtimes.formats import format_of
from runtimes.manifest import Manifest, OutputMeaning, Preprocess, Quantization, SelfCheck, TensorSpec

__all__ = [
    "Artifact",
    "Manifest",
    "OutputMeaning",
    "Preprocess",
    "Quantization",
    "SelfCheck",
    "TensorSpec",
    "sha256",
]

MANIFEST = "manifest.json"
SELFCHECK = "selfcheck.npz"
_REMAKE = "write the artifact again with `edge convert`"
_LARGEST_MANIFEST = 16 * 2**20
_LARGEST_SELFCHECK = 512 * 2**20


@dataclass(frozen=True)
class Artifact:
    """A model on disk and what is known of it; `path` is its folder (for a bare file, the folder it lies in)."""

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The model file (or folder, for formats that are one) that engines open."""
        return self.path / self.manifest.model

    @property
    def is_bare(self) -> bool:
        """Whether this is a model file alone, without digests or self-check."""
        return not self.manifest.files

    @classmethod
    def open(cls, path: Path) -> Artifact:
        """Open an artifact folder or a bare model file; InputError when it is neither."""
        if not path.exists():
            raise InputError(f"{path} does not exist", "give an artifact folder or a model file")
        if path.name == MANIFEST:
            path = path.parent
        if (path / MANIFEST).is_file():
            return cls._read(path)
        model_format = format_of(path)
        return cls(path.parent, Manifest(path.stem, model_format, "unknown", path.name))

    @classmethod
    def _read(cls, folder: Path) -> Artifact:
        document = folder / MANIFEST
        if document.stat().st_size > _LARGEST_MANIFEST:
            raise InputError(f"{document} is larger than any manifest", _REMAKE)
        manifest = Manifest.from_json(document.read_text(encoding="utf-8", errors="replace"), str(document))
        names = [manifest.model, *manifest.files]
        if manifest.output and manifest.output.labels:
            names.append(manifest.output.labels)
        for name in names:
            _confined(folder, name)
        return cls(folder, manifest)

    def verify_digests(self) -> None:
        """Compare every file with its sha256; InputError names the first that differs or is missing."""
        for name, digest in sorted(self.manifest.files.items()):
            path = self.path / name
            if not path.is_file():
                raise InputError(f"{path} is missing from the artifact", _REMAKE)
            if sha256(path) != digest:
                raise InputError(f"{path} has changed since the artifact was written", _REMAKE)

    def labels(self) -> list[str] | None:
        """One label for each class of the first output, or None where the artifact carries none."""
        if self.manifest.output is None or self.manifest.output.labels is None:
            return None
        path = self.path / self.manifest.output.labels
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as labels: {error}", _REMAKE) from None

    def selfcheck(self) -> tuple[Arrays, Arrays]:
        """Stored inputs, as fed to the model, and the source's outputs as real numbers.

        Each array is stacked over the samples on a new first axis: {input name: [n, *shape]}.
        """
        path = self.path / SELFCHECK
        if not path.is_file():
            raise InputError(f"{self.model} carries no self-check", _REMAKE)
        arrays = load_arrays(path, _LARGEST_SELFCHECK, _REMAKE)
        return _part(arrays, "input"), _part(arrays, "output")


def write(folder: Path, manifest: Manifest, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Artifact:
    """Finish an artifact whose model files lie in `folder`: self-check, digest of every file, manifest.

    `inputs` and `outputs` are as `Artifact.selfcheck` returns them. The same content gives the same bytes.
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
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _confined(folder: Path, name: str) -> None:
    """A manifest is untrusted: none of its paths may leave the artifact's folder."""
    resolved, root = (folder / name).resolve(), folder.resolve()
    if root not in resolved.parents:
        raise InputError(
            f"{folder / MANIFEST} names '{name}', which is outside the artifact", "do not use this artifact"
        )


def _part(arrays: Arrays, kind: str) -> Arrays:
    return {name[len(kind) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{kind}:")}
