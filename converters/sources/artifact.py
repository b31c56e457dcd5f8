"""Artifacts, and plain model files and SavedModel folders of every format that `runtimes.model_files.detect` knows.

They are checked before a library opens them: nothing is unpickled, and nothing outside a model's folder is read.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from converters.sources.source import OpenedSource, Source, SourceOptions
from runtimes.errors import InputError, UsageError
from runtimes.model_files.detect import SUFFIXES
from runtimes.model_files.onnx import check_external_data

MAX_UNPACKED_BYTES = 16 * 2**30  # bytes, unpacked: beyond what these converters can hold in memory
_PLAIN = "give a .keras, .h5, .onnx or .tflite file, or a SavedModel folder"

_EXPORT = "export it where it was trained: torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
_PICKLE = "a pickle can run any code and is never opened; export the model to .onnx where it was trained"
_WEIGHTS = (
    "it holds weights only: save the whole model as .keras, SavedModel or .onnx, or give PyTorch code as well: "
    "edge convert package.module:make --weights FILE"
)
_ENGINE = "a TensorRT engine cannot be converted; give the .onnx that it was built from"
_PACKED = "unpack it, and give the model inside"
_CHECKPOINT = "it is a part of a TensorFlow checkpoint, which holds weights only; save the whole model as a SavedModel"

# Suffixes of files that look like models but that no engine here opens → what to do instead.
_FOREIGN = {
    ".pt": _EXPORT,
    ".pth": _EXPORT,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".joblib": _PICKLE,
    ".ckpt": _WEIGHTS,
    ".safetensors": _WEIGHTS,
    ".index": _CHECKPOINT,
    ".meta": _CHECKPOINT,
    ".hdf5": "if it is a Keras model, rename it to .h5",
    ".pb": "give the SavedModel folder that contains it; for a frozen graph, export .onnx with tf2onnx first",
    ".bin": "give the .xml next to it (OpenVINO), or the model that it was made from",
    ".data": "give the .onnx next to it, whose weights it holds",
    ".ort": "ONNX Runtime wrote it for itself; give the .onnx that it was made from",
    ".task": "it is an archive of MediaPipe: unzip it, and give the .tflite inside",
    ".zip": _PACKED,
    ".tar": _PACKED,
    ".gz": _PACKED,
    ".tgz": _PACKED,
    ".caffemodel": "export it to .onnx first",
    ".pdmodel": "export it to .onnx first, with paddle2onnx",
    ".mlmodel": "Core ML runs on Apple's systems alone; give the model that it was made from",
    ".engine": _ENGINE,
    ".plan": _ENGINE,
}


class ArtifactSource(Source):
    """Artifacts and model files, which describe their own inputs."""

    id = "artifact"
    suffixes = tuple(SUFFIXES)

    def recognizes(self, _path: Path) -> bool:
        """Return True: `open` reports what is wrong with a path that is not a model."""
        return True

    def open(self, path: Path, options: SourceOptions) -> OpenedSource:
        """See `open_source`. A Keras file whose classes `--code` brings is exported first."""
        if options.code is not None:
            from converters.sources.keras_code import KerasCodeSource

            return KerasCodeSource().open(path, options)
        if options.signature is not None and options.signature not in (names := signature_names(path)):
            known = f"its only one is '{names[0]}'" if names else "it is for SavedModels and .tflite with several"
            raise UsageError(f"{path} has no signature '{options.signature}'", f"leave --signature out; {known}")
        return open_source(path, hashed=options.hashed)


def open_source(path: Path, *, hashed: bool = True) -> OpenedSource:
    """Open a model or artifact without any engine.

    hashed: Whether to hash the model and compare an artifact with its digests. If not, the source's `sha256` is empty,
        and the converter process does so.

    Raises InputError, with what to give instead, for a path that is not a model. Nothing is unpickled. ONNX models with
    files outside their folder, and archives that unpack to more than `MAX_UNPACKED_BYTES` bytes, are refused.
    """
    suffix = path.suffix.lower()
    if suffix in _FOREIGN and not path.is_dir():
        what = f"{path} does not exist" if not path.exists() else f"{path} is not a model that can be converted"
        raise InputError(what, _FOREIGN[suffix] if path.exists() else _PLAIN)
    from runtimes.artifact import Artifact

    artifact = Artifact.open(path)
    if hashed:
        artifact.verify_digests()
    _check(artifact.model, artifact.manifest.format)
    return OpenedSource(artifact=artifact, sha256=artifact.model_sha256() if hashed else "")


def signature_names(path: Path) -> tuple[str, ...]:
    """Return the signatures of a bare SavedModel folder or `.tflite` file; none for anything else."""
    saved = path / "saved_model.pb"
    if path.suffix.lower() == ".tflite" and path.is_file():
        from converters.tflite.reader import signatures_in

        return signatures_in(path)
    if not saved.is_file():
        return ()
    from converters.wire.buffer import ByteSource
    from converters.wire.protobuf import Message

    names = (entry.text(1) for graph in Message(ByteSource.open(saved)).messages(2)[:1] for entry in graph.messages(5))
    return tuple(sorted(name for name in names if not name.startswith("__")))


def _check(model: Path, model_format: str) -> None:
    if not model.exists():
        raise InputError(f"{model} does not exist", "write the artifact again with `edge convert`")
    if _size(model) > MAX_UNPACKED_BYTES:
        raise InputError(
            f"{model} is or unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB", "convert a smaller model"
        )
    if model_format == "onnx":
        check_external_data(model)
    if model_format == "savedmodel":
        _check_links(model)


def _size(model: Path) -> int:
    """Return the bytes on disk, or those that the archive claims to unpack to, whichever is more."""
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
