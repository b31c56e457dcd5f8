"""The converter interface. A converter is one file, `converters/<source>_to_<target>.py`.

A converter only deals with its two formats; the pipeline chains converters, compares the result with its source and
writes the artifact. On a route of several converters, the last one applies the requested precision and the others run
in fp32. The class declares the converter's requirements and capabilities.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from converters.onnx.opset import WRITTEN_OPSET
from converters.options import ConvertOptions
from runtimes.errors import EngineMissingError, UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.layer_errors import LayerError
    from runtimes.arrays import Arrays
    from runtimes.artifact.json_fields import JsonValue

NEXT_STATE = "/next"  # follows the name of a state in that of the output that gives its next value


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each module; this reads the lists of files of all, which takes most of a second."""
    return metadata.packages_distributions()


@dataclass(frozen=True)
class Requirement:
    """A library that a converter or a source uses: its import name, and the extra of this project that installs it."""

    module: str
    extra: str = ""  # "" means the import name

    @property
    def is_installed(self) -> bool:
        """Whether the library can be found, without importing it."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The version of the installed distribution that has the library, or "" if none is known."""
        try:
            return metadata.version(self.module)
        except metadata.PackageNotFoundError:  # tensorflow, for one, may come from tensorflow-cpu
            names = _distributions().get(self.module)
            return metadata.version(names[0]) if names else ""

    def check(self, user: str) -> None:
        """Raise EngineMissingError, naming `user` and the extra to install, if the library is missing."""
        if not self.is_installed:
            from runtimes.registry import install_hint

            what = f"{user} needs '{self.module}', which is not installed"
            raise EngineMissingError(what, install_hint(self.extra or self.module))


@dataclass(frozen=True)
class ProxyModel:
    """A model that computes the same as the result does on its device, in a format that a local engine runs."""

    model: Path
    format: str


@dataclass(frozen=True, kw_only=True)
class ConversionOutput:
    """The result of a converter.

    model: The model file, or its folder.
    format: The result's format if it is not the converter's target.
    proxy: A model to verify instead if the result's engine or device is not available here.
    facts: Entries for the manifest.
    notes: Notes for the user.
    remaining_commands: Commands that the user must run on a machine with the missing tools.
    device_model: A model that also rounds what the device rounds, such as every activation to fp16; its outputs must be
        correct too.
    max_selfcheck_bytes: The limit for the inputs of the self-check, of which two samples are always kept; None if there
        is no limit.
    cross_check: Also runs the result on an engine as old as the device's; its outputs must be correct there too.
    states: Inputs that take what an output gave for the sample before, for what the source keeps in variables; zero at
        first. If empty, those of the converter's source stay.
    """

    model: Path
    format: str | None = None
    proxy: ProxyModel | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remaining_commands: tuple[str, ...] = ()
    device_model: ProxyModel | None = None
    cross_check: CrossCheck | None = None
    max_selfcheck_bytes: int | None = None
    states: Mapping[str, str] = field(default_factory=dict)


class Converter(ABC):
    """A converter from one format to another.

    source: The format that it reads.
    target: The format that it writes.
    precisions: The precisions that it can write, such as ("fp32", "int8").
    requires: The libraries that it uses.
    Options: Its options: `ConvertOptions`, or a subclass next to the converter.
    input_precision: The precision that its source must have.
    packs: Whether it keeps the source's numbers, so that its source must have the result's precision instead.
    rank: Of routes that are otherwise equally good, the one whose last converter has the lowest rank is chosen.
    reads_quantized: Whether it also converts a source that is int8 already to int8, without calibration.
    keeps_quantized: Further precisions that its source may have; the result has the same, with the same scales.
    keeps_layers: Whether it can keep the layers in `options.keep`, named by `layer_errors`, in higher precision.
    """

    source: str
    target: str
    precisions: tuple[str, ...]
    requires: tuple[Requirement, ...] = ()
    Options: ClassVar[type[ConvertOptions]] = ConvertOptions
    input_precision: str = "fp32"
    packs: bool = False
    rank: int = 0
    reads_quantized: bool = False
    keeps_quantized: tuple[str, ...] = ()
    keeps_layers: bool = False

    @property
    def id(self) -> str:
        """The name of its file, such as `keras_to_tflite`."""
        return f"{self.source}_to_{self.target}"

    def reads(self, precision: str) -> str:
        """The precision that its source must have for a result in `precision`."""
        return precision if self.packs else self.input_precision

    @abstractmethod
    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Convert the file `model` into the existing folder `out`.

        Deterministic: the same input yields the same bytes. `calibration` is only needed for int8. Raises UsageError
        for unsupported options, InputError for a model that cannot be read or converted, EngineMissingError for a
        missing library, EngineError for a failing one, and RefusedError for a model that the target device cannot run.
        """

    def environments(self, _options: ConvertOptions) -> tuple[str, ...]:
        """The separate Python environments that it uses (`converters.environments`)."""
        return ()

    def keeps_free_sizes(self, _options: ConvertOptions) -> bool:
        """Return whether free axes of the model, other than the batch, stay free in the result."""
        return False

    def check_options(self, options: ConvertOptions) -> None:  # noqa: B027 - most converters support all of their options
        """Raise RefusedError or UsageError for options that cannot be met, before anything is opened."""

    def for_board(self, options: ConvertOptions, release: str | None, max_opset: int | None) -> ConvertOptions:
        """Return the options for a board with tools of `release` that read ONNX up to `max_opset`; None: any.

        Raises RefusedError for options that such a board cannot support.
        """
        opset = max_opset if max_opset and max_opset <= WRITTEN_OPSET else None
        return replace(options, opset=options.opset or opset, release=release)

    def source_opset(self, options: ConvertOptions) -> int | None:
        """The opset that its source ONNX model should have; None: any."""
        return options.opset

    def plan_notes(self, _options: ConvertOptions) -> tuple[str, ...]:
        """Notes on the plan if no opset was requested."""
        return ()

    def layer_errors(
        self, _model: Path, _result: Path, _options: ConvertOptions, _samples: Calibration
    ) -> Sequence[LayerError]:
        """Rank the layers of `model` by the error they add in the quantized `result`, worst first."""
        return ()

    def head_layers(self, _model: Path, _result: Path) -> Sequence[tuple[str, ...]]:
        """Return growing sets of layers at the outputs of `model`, quantized in `result`, to keep for `options.keep`.

        They are kept where slices of different scale share an output; none if the converter cannot keep layers.
        """
        return ()

    def check(self, options: ConvertOptions, calibration: Calibration | None) -> None:
        """Check what every converter needs: a supported precision, data for int8, and its libraries."""
        self.check_precision(options.precision)
        if options.precision == "int8" and calibration is None:
            raise UsageError(
                f"{self.id} needs calibration data to write int8", "pass a folder of pictures with --calibration"
            )
        self.check_libraries()

    def check_precision(self, precision: str) -> None:
        """Raise UsageError for a precision that it does not support."""
        if precision not in self.precisions:
            raise UsageError(f"{self.id} cannot write {precision}", f"its precisions: {', '.join(self.precisions)}")

    def check_libraries(self) -> None:
        """Raise EngineMissingError, naming the extra to install, if a required library is not installed."""
        for requirement in self.requires:
            requirement.check(self.id)


def feeds_for(calibration: Calibration, names: Sequence[str]) -> Iterator[Arrays]:
    """Rename calibration samples to the inputs of this converter's source: by name, else by position."""
    for feed in calibration.feeds():
        yield feed if set(feed) == set(names) else dict(zip(names, feed.values(), strict=True))


@dataclass(frozen=True, kw_only=True)
class CrossCheckResult:
    """The outputs of another engine: dequantized float32 [n, *shape], in the requested order, and notes."""

    engine: str
    answers: Arrays
    notes: tuple[str, ...] = ()


class CrossCheck(Protocol):
    """Runs the result on another engine."""

    def __call__(self, feeds: Arrays, outputs: Sequence[str]) -> CrossCheckResult:
        """Return the `outputs` for `feeds` (model inputs by name, stacked [n, *shape])."""
