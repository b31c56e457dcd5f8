"""The base class of the converters to GGUF, which differ only in how they read the source."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput, Converter, Requirement
from converters.gguf import PLAIN
from converters.options import ConvertOptions, option

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.gguf.model_parts import TextModel


@dataclass(frozen=True, kw_only=True)
class GgufOptions(ConvertOptions):
    """Options for adapters and the chat template."""

    title = "language models: Hugging Face, Meta and llama2.c to gguf"

    lora: Path | None = option(None, "a PEFT LoRA adapter to merge into the model", metavar="FOLDER", type=Path)
    base: Path | None = option(
        None, "the model that an adapter belongs to, where MODEL is the adapter", metavar="FOLDER", type=Path
    )
    drop_template: bool = option(False, "leave the chat template out", flag="--no-template")
    drop_pictures: bool = option(False, "leave the picture encoder (mmproj) out", flag="--no-pictures")


class GgufConverter(Converter):
    """A converter of language models, which can open its source without converting it."""

    target = "gguf"
    precisions = (*PLAIN, "q8_0", "q4_0", "q4_k_m")
    requires: tuple[Requirement, ...] = (Requirement("gguf"),)
    Options = GgufOptions

    @abstractmethod
    def open(self, model: Path, options: GgufOptions) -> TextModel:
        """Open a source without executing any of its code. Raises InputError if it is broken, unknown or incomplete."""

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write the GGUF file; see `Converter`."""
        from converters.gguf.write_model_file import make_gguf

        self.check(options, calibration)
        return make_gguf(self.open(model, self.Options.of(options)), out, options)
