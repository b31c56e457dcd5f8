"""The task `brightness`: how bright the picture is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonValue
from runtimes.model_files.facts import ModelFacts
from runtimes.task import Agreement, Decoder, Result, Task

_NAME = "brightness"
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Brightness(Result):
    """Between 0, black, and 1, white."""

    value: float

    def to_json(self) -> JsonValue:
        """The number."""
        return self.value


@dataclass(frozen=True)
class BrightnessOutput(Decoder[Brightness]):
    """The only output is one number by the name of the task."""

    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> BrightnessOutput | None:
        """A model whose only output is called `brightness`."""
        return cls() if [spec.name for spec in model.outputs] == [_NAME] else None

    def decode(self, outputs: Mapping[str, Array]) -> Brightness:
        """The number in the output."""
        return Brightness(round(float(outputs[_NAME].reshape(-1)[0]), 6))


class BrightnessTask(Task[Brightness]):
    """Tells how bright a picture is."""

    id: ClassVar[str] = _NAME
    decoders = (BrightnessOutput,)

    def compare(self, expected: Brightness, actual: Brightness) -> Agreement:
        """They agree within a hundredth."""
        off = abs(expected.value - actual.value)
        return Agreement(off <= _TOLERANCE, {"difference": off}, f"{expected.value} and {actual.value}")
