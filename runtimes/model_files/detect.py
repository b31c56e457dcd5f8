"""The model formats, and detecting a file's format by its name, checked against its first bytes."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, Callable

from runtimes.errors import InputError
from runtimes.model_files.onnx import check_external_data, external_files

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_TFLITE = b"TFL3"  # after four bytes
# Files of PyTorch that no engine opens, but that `edge convert` takes.
_TORCHSCRIPT = frozenset((".pt", ".pth", ".ts", ".torchscript", ".jit"))
# ggml, ggmf, ggjt and ggla, as little-endian numbers: what llama.cpp wrote before GGUF.
_OLD_GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")


@dataclass(frozen=True)
class Format:
    """A model format. Its name is used in manifests and on the command line.

    suffixes: File suffixes (".onnx") or name endings ("_edgetpu.tflite"); none for a folder or an address.
    preferred_engine: The engine that is tried first when several open the format.
    magic: Whether a file that begins with these bytes can have the format.
    reader: The module of `edge.inspection` that reads its files; "" if there is nothing to read.
    compiled_for: What its files are compiled for, as text. A compiled model cannot be converted any further.
    compiled_from: What to convert instead.
    further_files: The names of further files of a model, relative to its folder. Raises InputError for one outside it.
    is_for_text: Whether its models are language models, which other engines open and other commands run.
    """

    suffixes: tuple[str, ...]
    preferred_engine: str
    magic: Callable[[Path, bytes], bool] = lambda _path, head: len(head) > 0
    reader: str = ""
    compiled_for: str = ""
    compiled_from: str = ""
    further_files: Callable[[Path], AbstractSet[str]] = lambda _model: frozenset()
    is_for_text: bool = False

    @property
    def is_compiled(self) -> bool:
        """Whether it is the result of a compiler, which no conversion takes as its source."""
        return bool(self.compiled_for)


# The first bytes of a file → what it is.
_KINDS = (
    (_HDF5, "it is an HDF5 file, as .h5 models are"),
    (_ZIP, "it is a ZIP archive, as .keras and .pt2 models are"),
    (b"GGUF", "it is a GGUF file"),
)


def _describe_magic(head: bytes) -> str:
    """Return what a file with these first bytes is; "" if that is unknown."""
    if head[4:8] == _TFLITE:
        return "it is a TFLite file"
    return next((what for start, what in _KINDS if head.startswith(start)), "")


def _is_onnx(_path: Path, head: bytes) -> bool:
    return bool(head) and not _describe_magic(head)  # protobuf has no first bytes of its own


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # raised for some broken archives
        return False


def _is_tflite(_path: Path, head: bytes) -> bool:
    return head[4:8] == _TFLITE


def _is_xml(_path: Path, head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net"))


def _is_keras(path: Path, head: bytes) -> bool:
    return head.startswith(_HDF5) if path.suffix.lower() == ".h5" else _is_zip(path)


def _external_files(model: Path) -> AbstractSet[str]:
    check_external_data(model)
    return external_files(model)


FORMATS = {
    "onnx": Format((".onnx",), "onnxruntime", _is_onnx, reader="onnx", further_files=_external_files),
    "tflite": Format((".tflite",), "litert", _is_tflite, reader="tflite"),
    "edgetpu": Format(
        ("_edgetpu.tflite",),
        "edgetpu",
        _is_tflite,
        reader="tflite",
        compiled_for="compiled for the Edge TPU",
        compiled_from=".tflite that it was compiled from",
    ),
    "openvino": Format(
        (".xml",), "openvino", _is_xml, reader="openvino", further_files=lambda model: {model.with_suffix(".bin").name}
    ),
    "keras": Format((".keras", ".h5"), "keras", _is_keras, reader="keras"),
    "savedmodel": Format((), "tensorflow", reader="savedmodel"),
    "pt2": Format((".pt2",), "torch", lambda path, _head: _is_zip(path), reader="pt2"),
    "tensorrt": Format(
        (".engine", ".plan"),
        "tensorrt",
        reader="onnx",  # what an engine is built from
        compiled_for="made for TensorRT",
        compiled_from="model that it was made from",
    ),
    "gguf": Format(
        (".gguf",), "llama_cpp", lambda _path, head: head.startswith(b"GGUF"), reader="gguf", is_for_text=True
    ),
    "llama-server": Format((), "llama_server", is_for_text=True),
    "null": Format((".null",), "null"),
}

# Suffix → format, for files that are identified by their suffix alone.
SUFFIXES = {suffix: name for name, one in FORMATS.items() for suffix in one.suffixes if suffix.startswith(".")}
_ENDS = {suffix: name for name, one in FORMATS.items() for suffix in one.suffixes if not suffix.startswith(".")}


# What a download may write in place of a model: its first bytes in lower case → what it is, and what to do.
_PAGE = "it is a web page", "download the file itself, not the page that shows it"
_NOT_THE_FILE: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "it is a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"<!doctype html", *_PAGE),
    (b"<html", *_PAGE),
)


def layout_of(model_format: str) -> str:
    """Return the format whose files it shares: "tflite" for "edgetpu". "" if edge does not read its files."""
    return FORMATS[model_format].reader if model_format in FORMATS else ""


def is_language_model(model_format: str) -> bool:
    """Return whether models of this format are language models."""
    return model_format in FORMATS and FORMATS[model_format].is_for_text


def format_of(path: Path) -> str:
    """Return the format of a model file or of a TensorFlow SavedModel folder.

    Raises InputError if it is not a model, or its content does not match its suffix.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise InputError(
            f"{path} is a folder without manifest.json or saved_model.pb", "give a model file or an artifact"
        )
    ends = (name for end, name in _ENDS.items() if path.name.endswith(end))
    found = next(ends, SUFFIXES.get(path.suffix.lower()))
    if found is None:
        if path.suffix.lower() in _TORCHSCRIPT:
            hint = f"if it is TorchScript, convert it first: edge convert {path.name} --input 1x3x224x224 --to onnx"
            raise InputError(f"{path}: no engine opens PyTorch's {path.suffix} files", hint)
        known = sorted(set(SUFFIXES) - {".null"})  # which is for measurements of the harness alone
        raise InputError(f"{path}: unknown kind of model", f"known suffixes: {' '.join(known)}")
    _check_content(path, found)
    return found


def _check_content(path: Path, expected: str) -> None:
    """Reject a file whose first bytes do not match its suffix, such as a pickle or an HTML error page."""
    if path.exists() and not path.is_file():  # reading a named pipe would block forever
        raise InputError(f"{path} is not a plain file", "give a model file or an artifact")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    _refuse_placeholder(path, head, f"{_with_article(expected)} model")
    weights = path.with_suffix(".bin")
    if expected == "openvino" and weights.is_file():
        with weights.open("rb") as stream:
            _refuse_placeholder(weights, stream.read(64), "the model's weights")
    if not FORMATS[expected].magic(path, head):
        what = "its archive is damaged or cut short" if _is_archive(path, head) else _describe_head(head)
        raise InputError(
            f"{path} is not {_with_article(expected)} model: {what}", "check how the file was made or copied"
        )


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _is_archive(path: Path, head: bytes) -> bool:
    return head.startswith(_ZIP) and path.suffix.lower() in (".keras", ".pt2")


def _refuse_placeholder(path: Path, head: bytes, expected: str) -> None:
    """Raise InputError if a file that begins with `head` is what a download wrote in its place."""
    for start, what, hint in _NOT_THE_FILE:
        if head.lstrip().lower().startswith(start):
            raise InputError(f"{path} is not {expected}: {what}", hint)


def _describe_head(head: bytes) -> str:
    if not head:
        return "it is empty"
    if kind := _describe_magic(head):
        return kind
    if head[:4] in _OLD_GGML:
        return (
            "it is a ggml file of 2023, which llama.cpp no longer reads: convert the original weights with edge convert"
        )
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a bare pickle, which could run any code and is never opened"
    return f"it starts with {head[:8].hex(' ')}"
