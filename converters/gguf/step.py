"""What the steps to GGUF are alike in: all but how the source is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from converters.gguf.make import PRECISIONS, REQUIRES, make_gguf
from converters.gguf.model import LanguageModel
from converters.steps import Made, StepOptions, check_options

if TYPE_CHECKING:
    from converters.calibration import Calibration


class GgufStep(ABC):
    """See `converters.steps.Step`."""

    source: str
    target = "gguf"
    precisions = PRECISIONS
    requires: tuple[str, ...] = REQUIRES

    @abstractmethod
    def open(self, model: Path, options: StepOptions) -> LanguageModel:
        """The model of a source; InputError for what is broken, unknown, or not beside it. Nothing is executed."""

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Made:
        """Refuse what is no such source, and write the file."""
        check_options(self, options, calibration)
        return make_gguf(self.open(model, options), out, options)
