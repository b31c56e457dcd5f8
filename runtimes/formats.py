"""Which format is this file? Told from its name, and held against its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from runtimes.errors import InputError

# Suffix → format, the same words as in manifests and on the command line.
SUFFIXES = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".xml": "openvino",
    ".keras": "keras",
    ".h5": "keras",
    ".pt2": "pt2",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".gguf": "gguf",
    ".null": "null",
}
EDGETPU_SUFFIX = "_edgetpu.tflite"
_HDF5 = b"\x89HDF\r\n\x1a\n"
# ggml, ggmf, ggjt and ggla, as little-endian numbers: what llama.cpp wrote before GGUF.
_OLD_GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")


def format_of(path: Path) -> str:
    """The format of a model file, or of a TensorFlow SavedModel folder; InputError when it is none, or a lie."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise InputError(
            f"{path} is a folder without manifest.json or saved_model.pb", "give a model file or an artifact"
        )
    found = "edgetpu" if path.name.endswith(EDGETPU_SUFFIX) else SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise InputError(f"{path}: unknown kind of model", f"known suffixes: {' '.join(sorted(SUFFIXES))}")
    _check_content(path, found)
    return found


def _check_content(path: Path, expected: str) -> None:
    """Refuse a file whose first bytes cannot be what its suffix says: pickles and truncated downloads end here."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise InputError(f"{path} is not a plain file", "give a model file or an artifact")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    if not _plausible(path, expected, head):
        raise InputError(f"{path} is not a {expected} model: {_what(head)}", "check how the file was made or copied")


def _plausible(path: Path, expected: str, head: bytes) -> bool:
    if expected in ("tflite", "edgetpu"):
        return head[4:8] == b"TFL3"
    if expected == "openvino":
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net"))
    if expected == "keras":
        return head.startswith(_HDF5) if path.suffix.lower() == ".h5" else _is_zip(path)
    if expected == "pt2":
        return _is_zip(path)
    if expected == "gguf":
        return head.startswith(b"GGUF")
    return len(head) > 0


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # some broken archives are not merely "no"
        return False


def _what(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head[:4] in _OLD_GGML:
        return (
            "it is a ggml file of 2023, which llama.cpp no longer reads: convert the original weights with edge convert"
        )
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a bare pickle, which could run any code and is never opened"
    return f"it starts with {head[:8].hex(' ')}"
