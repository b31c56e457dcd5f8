"""The task interface: recognize a task's models, decode their outputs, and compare two results.

A task is one file in `runtimes/tasks/` with a class that derives from `Task`; each output layout that it supports is
a `Decoder`. Its counterpart in `edge/tasks/` draws, describes and scores results on the host. This module also runs on
boards: Python 3.8, the standard library and numpy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Generic, Mapping, Sequence, TypeVar

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact.json_fields import JsonValue
from runtimes.artifact.manifest import TensorSpec
from runtimes.artifact.self_check import RowScores
from runtimes.errors import UsageError
from runtimes.model_files.facts import ModelFacts, TextInputs


@dataclass(frozen=True)
class Placement:
    """The mapping from picture to model input: input pixel = picture pixel × scale + offset, for x and y.

    size: Width and height of the picture.
    scale: For x and y.
    offset: For x and y, in input pixels.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_picture(self, points: Array) -> Array:
        """Map points [..., 2] (x, y) from input pixels to picture pixels, without clipping."""
        real: Array = (np.asarray(points, np.float64) - np.asarray(self.offset)) / np.asarray(self.scale)
        return real


_DRAWING = "drawing"


class Result(ABC):
    """The decoded outputs of one inference. Subclasses are frozen dataclasses."""

    @abstractmethod
    def to_json(self) -> JsonValue:
        """The value of "result" in `edge run --json`."""

    def in_picture(self, placement: Placement) -> Result:
        """Map coordinates from pixels of the model's input, which decoders return, to pixels of the source picture."""
        del placement
        return self

    def draw(self) -> Any:
        """Draw the result on a copy of its picture, a `PIL.Image`.

        Raises UsageError if it does not come from a picture, or if results of its task cannot be drawn.
        """
        if _DRAWING not in vars(self):
            raise UsageError("this result does not come from a picture", "pass a picture's file to Model.predict")
        return vars(self)[_DRAWING]()

    def with_drawing(self: R, drawing: Callable[[], Any]) -> R:
        """Return the same result, which `drawing` draws: the host has the picture, and Pillow."""
        copied = copy(self)
        vars(copied)[_DRAWING] = drawing  # not a field, because it is not part of the value
        return copied


@dataclass(frozen=True)
class Agreement:
    """Whether two results agree, the metrics, and a summary in one line."""

    agrees: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class DecodeOptions:
    """User options of a decoder.

    top: The number of classes to list.
    confidence: The lowest score of a box or pose; None leaves it to the decoder.
    iou: Boxes of a class that overlap by more are one object; None leaves it to the decoder.
    """

    top: int = 5
    confidence: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class PictureDefaults:
    """How models with a decoder's layout take pictures, for values that neither the file nor the user specifies.

    resize, pad: As in `Preprocess`.
    mean, scale: As in `Preprocess`, for float inputs; None if models of this layout differ.
    family: The models that this is known of, for messages.
    """

    resize: str = "stretch"
    pad: int = 0
    mean: float | None = None
    scale: float | None = None
    family: str = ""


SAMPLES, SPECTRUM = "samples", "spectrum"


@dataclass(frozen=True)
class SoundWindows:
    """How a model takes a sound: window after window.

    input: The name of the input that takes the windows.
    rate: Samples per second.
    step: The samples that are new in a window.
    context: The last samples of the window before, which each window begins with; zeros at first.
    features: SAMPLES (−1…1), or SPECTRUM: 40 bands every 10 ms, see `edge.inference.spectrum`.
    rate_input: The name of an input that takes the rate; "" if there is none.
    states: Inputs that take what an output gave for the window before: input name → output name.
    """

    input: str
    rate: int
    step: int
    context: int = 0
    features: str = SAMPLES
    rate_input: str = ""
    states: Mapping[str, str] = field(default_factory=dict)


R = TypeVar("R", bound=Result)


class Decoder(ABC, Generic[R]):
    """Decodes one output layout. Subclasses are frozen dataclasses of the parameters that this needs.

    assumptions: What was assumed for lack of information, as sentences that name the option to override it.
    labels: The class names, in the model's order; None if it has none.
    """

    assumptions: tuple[str, ...]
    labels: tuple[str, ...] | None = None

    @classmethod
    @abstractmethod
    def recognize(cls, model: ModelFacts) -> Decoder[R] | None:
        """Return the decoder for this model, or None if its outputs have another layout.

        Decides by metadata, operators and shapes, never by a file name. Raises UsageError if the layout matches but a
        fact that cannot be guessed is missing; InputError if the model's metadata or the user's options contradict it.
        """

    @abstractmethod
    def decode(self, outputs: Mapping[str, Array]) -> R:
        """Decode the raw outputs of one inference, named as in the model facts.

        Raises InputError for outputs that cannot be such a result.
        """

    def pictures(self) -> PictureDefaults | None:
        """Return how models with this layout take pictures; None leaves it to the task."""
        return None

    def class_names(self) -> Mapping[int, str | None]:
        """Return the name of each class by the index that results have; empty if the classes are not known."""
        return dict(enumerate(self.labels or ()))

    def sounds(self) -> SoundWindows | None:
        """Return how models with this layout take a sound; None if they take none."""
        return None

    def texts(self) -> TextInputs | None:
        """Return the inputs that take a text; None if the model takes none."""
        return None

    def reads(self) -> tuple[str, ...]:
        """Return the inputs whose values `decode` needs besides the outputs, under their names."""
        return ()

    def row_scores(self) -> RowScores | None:
        """Return the scores by which `decode` reads some rows of the outputs and not others; None if it reads all."""
        return None

    def configured(self, options: DecodeOptions) -> Decoder[R]:
        """Return a copy with the user's options. A decoder without options returns itself."""
        del options
        return self


class Task(ABC, Generic[R]):
    """A task.

    id: The name of its file.
    rank: Tasks are tried in order of rank, lowest first; the less specific a task is, the higher its rank.
    resize: How to fit a picture to the input if the model does not specify it, as in `Preprocess`.
    decoders: The output layouts, tried in this order.
    """

    id: ClassVar[str]
    rank: ClassVar[int] = 0
    resize: ClassVar[str] = "stretch"
    decoders: ClassVar[tuple[type[Decoder[Any]], ...]]

    def recognize(self, model: ModelFacts) -> Decoder[R] | None:
        """Return the first decoder that recognizes this model's outputs, or None if the model is for another task."""
        found = (kind.recognize(model) for kind in self.decoders)
        return next((decoder for decoder in found if decoder is not None), None)

    def decode(self, outputs: Mapping[str, Array], decoder: Decoder[R]) -> R:
        """Decode the outputs of one inference."""
        return decoder.decode(outputs)

    @abstractmethod
    def compare(self, expected: R, actual: R) -> Agreement:
        """Compare two results at the level of the task."""


def named_outputs(outputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> Arrays:
    """Rename an engine's outputs to the names of `specs`: by name if they match, else by position.

    Engines name the same tensor differently.
    """
    names = [spec.name for spec in specs]
    if len(names) != len(outputs) or set(names) == set(outputs):
        return dict(outputs)
    return dict(zip(names, outputs.values()))
