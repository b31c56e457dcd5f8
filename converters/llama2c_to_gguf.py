"""A checkpoint of karpathy/llama2.c (`stories260K.bin`) to GGUF, with the tokenizer (`tok512.bin`) beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converters.gguf.base import GgufConverter, GgufOptions
from runtimes.errors import InputError

if TYPE_CHECKING:
    from converters.gguf.language_model import LanguageModel


class Llama2cToGguf(GgufConverter):
    """See `converters.base.Converter`."""

    source = "llama2c"

    def open(self, model: Path, options: GgufOptions) -> LanguageModel:
        """The model of a checkpoint; InputError for what is broken, and where the tokenizer is not beside it."""
        from converters.gguf.llama2c_checkpoint import read_checkpoint

        if options.lora:
            raise InputError(f"{model} takes no LoRA", "give a Hugging Face folder")
        return read_checkpoint(model)
