"""A step turns a model of one format into another: one file `converters/<source>_to_<target>.py` with a class `Step`.

A step knows its two formats and nothing of routes, proofs and manifests; the pipeline chains steps, compares the
result with its source and writes the artifact. On a route of several steps the last one takes the wanted
precision and those before it run in fp32.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import converters
from runtimes.arrays import Arrays
from runtimes.errors import EngineMissing, UsageError
from runtimes.registry import install_hint

if TYPE_CHECKING:
    from converters.calibration import Calibration
    from converters.witness import Witness

# The extra that installs a library, where it does not simply bear the library's name.
_EXTRAS = {"ai_edge_litert": "litert", "onnx": "table", "tf2onnx": "table", "nncf": "table", "safetensors": "table"}
_EXTRAS |= {"tokenizers": "gguf", "jinja2": "gguf"}


@dataclass(frozen=True)
class StepOptions:
    """What is asked of a step.

    `opset` is ONNX's, None for the step's own choice. `io_dtype` is the dtype of inputs and outputs of a quantised
    model ("int8", "uint8", "float32"), None for the step's own choice. `batch` is the fixed batch size of the
    result, None to leave it free where the target can. `release` is that of the device's engine ("8.2.1" of TensorRT),
    `implicit` asks for int8 by a table of ranges beside a float model, `min_mapped` for a share of the operations and
    of the multiply-adds, 0 to 1, that the accelerator has to take. `keep` are layers to leave in higher precision, as
    a step that can do so names them (`converters.blame.KeepsLayers`). `scratch` is a folder for what is no part of the
    result, such as a stand-in for it. `old_runtime` lets a runtime of the target's compiler's age answer too.
    `lora` is the folder of a PEFT adapter to merge into a language model; `drop_template` leaves its chat template out.
    """

    precision: str = "fp32"
    opset: int | None = None
    io_dtype: str | None = None
    batch: int | None = 1
    release: str | None = None
    implicit: bool = False
    min_mapped: float | None = None
    keep: tuple[str, ...] = ()
    scratch: str | None = None
    old_runtime: bool = False
    lora: str | None = None
    drop_template: bool = False


@dataclass(frozen=True)
class StandIn:
    """A model that computes what a result will compute on its device, in a format that an engine here runs."""

    model: Path
    format: str


@dataclass(frozen=True)
class Made:
    """What a step made, where there is more to say than the place of the model file.

    `format` is the result's where that is not the step's target. `stand_in` is run for the proof where the result's
    own engine or device is not here. `facts` go into the manifest, `notes` are lines to read, `left` the commands
    that are left to the user, on a machine that has what this one lacks. `witness` runs the result on an engine of
    the device's own age: the result has to answer right there too.
    """

    model: Path
    format: str | None = None
    stand_in: StandIn | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    witness: Witness | None = None


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

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path | Made:
        """Convert the file `model` into the existing folder `out`; returns the new model file, with what is to be said.

        The same input gives the same bytes. `calibration` is needed for int8 alone. Raises UsageError for options
        that the step cannot meet, InputError for a model that cannot be read or converted, EngineMissing for a
        library that is not installed, EngineError for one that fails, and RefusedError for what the device
        of the target cannot run.
        """


def find_steps() -> tuple[Step, ...]:
    """Every step there is, in the order of their file names; no engine is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(converters.__path__) if "_to_" in module.name)
    return tuple(cast(Step, import_module(f"converters.{name}").Step()) for name in names)


def step_id(step: Step) -> str:
    """The name of the step's file, such as `keras_to_tflite`."""
    return f"{step.source}_to_{step.target}"


def taken(step: Step) -> str:
    """The precision in which a step takes its source: fp32, but for those that say otherwise in `takes`."""
    return str(getattr(step, "takes", "fp32"))


def environments_of(step: Step, options: StepOptions) -> tuple[str, ...]:
    """The environments of their own that a step runs in (`converters.environments`), as its `environments` says."""
    named = getattr(step, "environments", None)
    return tuple(named(options)) if named else ()


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
    check_precision(step, options.precision)
    if options.precision == "int8" and calibration is None:
        raise UsageError(
            f"{step_id(step)} needs calibration data to write int8", "give a folder of pictures with --calibration"
        )
    check_libraries(step)


def check_precision(step: Step, precision: str) -> None:
    """UsageError for a precision that the step does not write."""
    if precision not in step.precisions:
        raise UsageError(f"{step_id(step)} cannot write {precision}", f"its precisions: {', '.join(step.precisions)}")


def feeds_for(calibration: Calibration, names: Sequence[str]) -> Iterator[Arrays]:
    """The calibration samples by the names that inputs have in this step's source: the same ones, else in order."""
    for feed in calibration.feeds():
        yield feed if set(feed) == set(names) else dict(zip(names, feed.values(), strict=True))
