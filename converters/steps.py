"""A step turns a model of one format into another: one file `converters/<source>_to_<target>.py` with a class `Step`.

A step knows its two formats and nothing of routes, proofs and manifests; the pipeline chains steps, compares the
result with its source and writes the artifact. On a route of several steps the last one takes the wanted
precision and those before it run in fp32.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import converters
from runtimes.arrays import Arrays
from runtimes.errors import EngineMissing, UsageError
from runtimes.registry import install_hint

if TYPE_CHECKING:
    from converters.calibration import Calibration

# The extra that installs a library, where it does not simply bear the library's name.
_EXTRAS = {"ai_edge_litert": "litert", "onnx": "table", "tf2onnx": "table", "nncf": "table", "safetensors": "table"}


@dataclass(frozen=True)
class StepOptions:
    """What is asked of a step.

    `opset` is ONNX's, None for the step's own choice. `io_dtype` is the dtype of inputs and outputs of a quantised
    model ("int8", "uint8", "float32"), None for the step's own choice. `batch` is the fixed batch size of the
    result, None to leave it free where the target can.
    """

    precision: str = "fp32"
    opset: int | None = None
    io_dtype: str | None = None
    batch: int | None = 1


class Step(Protocol):
    """One conversion."""

    @property
    def source(self) -> str:
        """The format that it reads."""

    @property
    def target(self) -> str:
        """The format that it writes."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it can write, such as ("fp32", "int8")."""

    @property
    def requires(self) -> tuple[str, ...]:
        """The import names of the libraries that it uses."""

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Convert the file `model` into the existing folder `out`; returns the new model file's path.

        The same input gives the same bytes. `calibration` is needed for int8 alone. Raises UsageError for options
        that the step cannot meet, InputError for a model that cannot be read or converted, EngineMissing for a
        library that is not installed and EngineError for one that fails.
        """


def find_steps() -> tuple[Step, ...]:
    """Every step there is, in the order of their file names; no engine is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(converters.__path__) if "_to_" in module.name)
    return tuple(cast(Step, import_module(f"converters.{name}").Step()) for name in names)


def step_id(step: Step) -> str:
    """The name of the step's file, such as `keras_to_tflite`."""
    return f"{step.source}_to_{step.target}"


def check_libraries(step: Step) -> None:
    """EngineMissing, naming the extra to install, when a library that the step needs is not installed."""
    for name in step.requires:
        check_library(name, step_id(step))


def check_library(name: str, user: str) -> None:
    """EngineMissing when the library with the import name `name`, which `user` needs, is not installed."""
    if importlib.util.find_spec(name) is None:
        raise EngineMissing(f"{user} needs '{name}', which is not installed", install_hint(_EXTRAS.get(name, name)))


def check_options(step: Step, options: StepOptions, calibration: Calibration | None) -> None:
    """What holds for every step: a precision that it knows, its libraries there, calibration data for int8."""
    if options.precision not in step.precisions:
        hint = f"its precisions: {', '.join(step.precisions)}"
        raise UsageError(f"{step_id(step)} cannot write {options.precision}", hint)
    if options.precision == "int8" and calibration is None:
        raise UsageError(
            f"{step_id(step)} needs calibration data to write int8", "give a folder of pictures with --calibration"
        )
    check_libraries(step)


def feeds_for(calibration: Calibration, names: Sequence[str]) -> Iterator[Arrays]:
    """The calibration samples by the names that inputs have in this step's source: the same ones, else in order."""
    for feed in calibration.feeds():
        yield feed if set(feed) == set(names) else dict(zip(names, feed.values(), strict=True))
