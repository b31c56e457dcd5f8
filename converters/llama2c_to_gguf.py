"""Convert a checkpoint of karpathy/llama2.c (`stories260K.bin`), with its tokenizer (`tok512.bin`), to GGUF."""

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
        """Open a checkpoint. Raises InputError if it is broken, or if the tokenizer is not in the same folder."""
        from converters.gguf.llama2c_checkpoint import read_checkpoint

        if options.lora:
            raise InputError(
                f"a LoRA adapter cannot be merged into {model}", "pass the base model as a Hugging Face folder"
            )
        return read_checkpoint(model)
