"""What is in a model file: read from the file alone, in pure Python, with no engine and no format's own library.

One file per format. Nothing here trusts the file: every offset and size is checked, work and memory are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from edge.inspection.report import Inspection
from runtimes.artifact import Artifact
from runtimes.errors import UsageError

__all__ = ["Inspection", "inspect"]

# Format → the module here that reads it.
_READERS = {
    "tflite": "tflite",
    "edgetpu": "tflite",
    "onnx": "onnx",
    "openvino": "openvino",
    "keras": "keras",
    "savedmodel": "savedmodel",
    "pt2": "pt2",
    "gguf": "gguf",
    "tensorrt": "onnx",  # what an engine is built from
}


def inspect(artifact: Artifact) -> Inspection:
    """Read an artifact's model file; InputError when it is broken, UsageError for a format that holds nothing."""
    model_format = artifact.manifest.format
    if model_format not in _READERS:
        raise UsageError(f"{artifact.model}: there is nothing to read in the format '{model_format}'")
    if model_format == "tensorrt" and artifact.model.suffix != ".onnx":
        hint = "inspect the .onnx that it was built from"
        raise UsageError(f"{artifact.model}: an engine can be read by the TensorRT alone that built it", hint)
    read = cast("Callable[[Path], Inspection]", import_module(f"edge.inspection.{_READERS[model_format]}").read)
    found = replace(read(artifact.model), format=model_format)
    return replace(found, size_bytes=found.size_bytes or artifact.model.stat().st_size)
