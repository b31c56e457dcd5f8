"""What did the user hand over? Told without running any of it, and checked before a library may open it."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import Artifact, sha256
from runtimes.errors import InputError
from runtimes.onnx_file import check_external_data

LARGEST = 16 * 2**30  # bytes, unpacked: beyond what these converters can hold in memory
_PLAIN = "give a .keras, .h5, .onnx or .tflite file, or a SavedModel folder"

# Files that people take for models and no engine here opens → what to do instead.
_FOREIGN = {
    ".pt": "export it where it was trained: torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
    ".pth": "export it where it was trained: torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
    ".pkl": "a pickle can run any code and is never opened; export the model to .onnx where it was trained",
    ".pickle": "a pickle can run any code and is never opened; export the model to .onnx where it was trained",
    ".joblib": "a pickle can run any code and is never opened; export the model to .onnx where it was trained",
    ".ckpt": "a checkpoint holds weights only; save the whole model as .keras, SavedModel or .onnx",
    ".safetensors": "it holds weights only; save the whole model as .keras, SavedModel or .onnx",
    ".pb": "give the SavedModel folder that it lies in; for a frozen graph, export .onnx with tf2onnx first",
    ".bin": "give the .xml beside it (OpenVINO), or the model that it was made from",
    ".caffemodel": "export it to .onnx first",
    ".engine": "a TensorRT engine cannot be converted; give the .onnx that it was built from",
    ".plan": "a TensorRT engine cannot be converted; give the .onnx that it was built from",
}


@dataclass(frozen=True)
class Source:
    """A model to convert: its artifact (one without digests for a bare file) and the sha256 of what the model is."""

    artifact: Artifact
    sha256: str

    @property
    def format(self) -> str:
        """The format's word, as in manifests."""
        return self.artifact.manifest.format

    @property
    def precision(self) -> str:
        """The manifest's word; "unknown" for a bare file."""
        return self.artifact.manifest.precision

    @property
    def model(self) -> Path:
        """The model file, or SavedModel folder."""
        return self.artifact.model

    def origin(self) -> dict[str, str]:
        """What the manifest of a result says of it."""
        return {"name": self.model.name, "format": self.format, "sha256": self.sha256}


def open_source(path: Path) -> Source:
    """Tell what `path` is, without any engine; InputError with what to give instead when it is no model.

    Nothing is unpickled; files that an ONNX model names outside its folder, and archives that unpack to more than
    `LARGEST` bytes, are refused.
    """
    suffix = path.suffix.lower()
    if suffix in _FOREIGN and not path.is_dir():
        what = f"{path} does not exist" if not path.exists() else f"{path} is not a model that can be converted"
        raise InputError(what, _FOREIGN[suffix] if path.exists() else _PLAIN)
    artifact = Artifact.open(path)
    artifact.verify_digests()
    _check(artifact.model, artifact.manifest.format)
    return Source(artifact, digest(artifact.model))


def digest(model: Path) -> str:
    """sha256 of a model file; of a folder, that of its sorted relative names and their digests."""
    if model.is_file():
        return sha256(model)
    total = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(model).as_posix()} {sha256(path)}\n".encode())
    return total.hexdigest()


def _check(model: Path, model_format: str) -> None:
    if not model.exists():
        raise InputError(f"{model} does not exist", "write the artifact again with `edge convert`")
    if _size(model) > LARGEST:
        raise InputError(f"{model} is or unpacks to more than {LARGEST >> 30} GiB", "convert a smaller model")
    if model_format == "onnx":
        check_external_data(model)
    if model_format == "savedmodel":
        _check_links(model)


def _size(model: Path) -> int:
    """Bytes on disk, or what the archive says it unpacks to, whichever is more."""
    if model.is_dir():
        return sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    size = model.stat().st_size
    if zipfile.is_zipfile(model):
        try:
            with zipfile.ZipFile(model) as archive:
                return max(size, sum(entry.file_size for entry in archive.infolist()))
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise InputError(f"{model} is a broken archive: {error}", "check how the file was made or copied") from None
    return size


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and root not in path.resolve().parents:
            raise InputError(f"{path} links to a file outside its folder", "do not use this model")
