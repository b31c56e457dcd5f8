"""What is in a GGUF file: its network, its tokeniser, and what its tensors really are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.inspection.report import Inspection
from runtimes.gguf_file import ArrayInfo, GgufFile, read_gguf
from runtimes.llama.quantize import histogram

_PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_LONGEST = 200  # characters of an entry that are shown


def read(path: Path) -> Inspection:
    """Read the header; InputError for a file that is broken, cut off, or lies about its sizes."""
    file = read_gguf(path)
    kind = next(iter(file.bytes_by_type()), "unknown")
    return Inspection(
        format="gguf",
        inputs=(),
        outputs=(),
        ops=histogram(file),
        precision=_PLAIN.get(kind, kind.lower()),
        parameter_bytes=file.bytes_by_type(),
        metadata=_told(file),
        notes=("the precision is that of most bytes: general.file_type is only what was asked for",),
    )


def _told(file: GgufFile) -> dict[str, Any]:
    parameters = {"parameters": file.parameters, "bits per weight": round(file.bits_per_weight, 2)}
    return {**parameters, **{key: _value(value) for key, value in file.metadata.items()}}


def _value(value: Any) -> Any:
    if isinstance(value, ArrayInfo):
        return f"{value.length} values"
    return f"{value[:_LONGEST]}…" if isinstance(value, str) and len(value) > _LONGEST else value
