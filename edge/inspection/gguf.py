"""Inspect GGUF files: the network, the tokenizer, and the actual types of the tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.inspection.report import Inspection
from runtimes.artifact.json_fields import JsonObject
from runtimes.llm.llama_cpp.quantize import count_types
from runtimes.model_files.gguf import ArrayInfo, GgufFile, read_gguf

_PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_LONGEST = 200  # characters shown of a metadata value


def read(path: Path) -> Inspection:
    """Read the header. Raises InputError if the file is broken, truncated, or has inconsistent sizes."""
    file = read_gguf(path)
    kind = next(iter(file.bytes_by_type()), "unknown")
    return Inspection(
        format="gguf",
        inputs=(),
        outputs=(),
        ops=count_types(file),
        precision=_PLAIN.get(kind, kind.lower()),
        parameter_bytes=file.bytes_by_type(),
        metadata=_metadata(file),
        notes=("the precision is that of most of the bytes; general.file_type is only what was requested",),
    )


def _metadata(file: GgufFile) -> JsonObject:
    parameters = {"parameters": file.parameters, "bits per weight": round(file.bits_per_weight, 2)}
    return {**parameters, **{key: _value(value) for key, value in file.metadata.items()}}


def _value(value: Any) -> Any:
    if isinstance(value, ArrayInfo):
        return f"{value.length} values"
    return f"{value[:_LONGEST]}…" if isinstance(value, str) and len(value) > _LONGEST else value
