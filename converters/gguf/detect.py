"""Detect language models and their kind from file names and first bytes, without opening weights."""

from __future__ import annotations

from pathlib import Path

from converters.gguf.lora import CONFIG
from converters.gguf.model_config import generates_text
from runtimes.errors import InputError

ADAPTER = "lora"  # the kind of a PEFT folder
CONSOLIDATED = "consolidated.*.pth"
# ggml, ggmf, ggjt and ggla, as little-endian numbers: what llama.cpp wrote before GGUF.
_OLD = (b"lmgg", b"fmgg", b"tjgg", b"algg")


def recognize(path: Path) -> str | None:
    """Return the kind of language model: "hf", "meta", "llama2c" or "lora"; None for anything else."""
    if path.is_dir():
        if (path / CONFIG).is_file():
            return ADAPTER
        if generates_text(path):
            return "hf"
        return "meta" if any(path.glob(CONSOLIDATED)) else None
    if path.suffix.lower() == ".bin" and path.is_file():
        with path.open("rb") as stream:
            head = stream.read(4)
        if head in _OLD:
            what = f"{path} is a ggml file of 2023, which llama.cpp no longer reads"
            raise InputError(what, "convert the original weights: edge convert HF_FOLDER --to gguf")
        return "llama2c" if not path.with_suffix(".xml").is_file() else None
    return None
