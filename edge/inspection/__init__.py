"""Describe the contents of model files in pure Python, without an engine or the format's own library.

One module per format. Files are untrusted: every offset and size is checked, and work and memory are bounded.
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
from runtimes.model_files.detect import layout_of

__all__ = ["Inspection", "inspect"]


def inspect(artifact: Artifact) -> Inspection:
    """Inspect an artifact's model file.

    Raises InputError if the file is broken, and UsageError if edge cannot inspect its format.
    """
    model_format = artifact.manifest.format
    reader = layout_of(model_format)
    if not reader:
        raise UsageError(f"{artifact.model}: edge cannot inspect files in the format '{model_format}'")
    if model_format == "tensorrt" and artifact.model.suffix != ".onnx":
        hint = "inspect the .onnx that it was built from"
        raise UsageError(f"{artifact.model}: only the TensorRT that built an engine can read it", hint)
    read = cast("Callable[[Path], Inspection]", import_module(f"edge.inspection.{reader}").read)
    found = replace(read(artifact.model), format=model_format)
    return replace(found, size_bytes=found.size_bytes or artifact.model.stat().st_size)
