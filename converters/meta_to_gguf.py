"""Convert Meta's own checkpoints (`consolidated.00.pth` …, params.json, tokenizer.model) to GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import Requirement
from converters.gguf.base import GgufConverter, GgufOptions
from runtimes.errors import InputError

if TYPE_CHECKING:
    from converters.gguf.language_model import LanguageModel


class MetaToGguf(GgufConverter):
    """See `converters.base.Converter`."""

    source = "meta"
    requires = (*GgufConverter.requires, Requirement("torch"))

    def open(self, model: Path, options: GgufOptions) -> LanguageModel:
        """Open the checkpoint in a folder. Raises InputError if it is broken. Only tensors are unpickled."""
        from converters.gguf.meta_checkpoint import read_checkpoint

        if options.lora:
            raise InputError(
                f"a LoRA adapter cannot be merged into {model}", "pass the base model as a Hugging Face folder"
            )
        return read_checkpoint(model)
