"""Sound: which classes are heard when, such as speech, a wake word or a kind of noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonValue, to_json
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import ModelFacts, class_names
from runtimes.session import concrete_shape, format_shape
from runtimes.task import SPECTRUM, Agreement, DecodeOptions, Decoder, Result, SoundWindows, Task
from runtimes.tensors import dequantize, softmax

RATE_KEY = "sample_rate"  # of the metadata
_RATE = 16_000  # of speech models
_MIN_SCORE = 0.5  # the score from which a class is heard
# Silero's voice activity detector: samples per second → new samples of a window, and those of the window before.
_SILERO = {16_000: (512, 64), 8_000: (256, 32)}
_SILERO_UNITS = 128
_BANDS, _ROW_SAMPLES = 40, 160  # of the spectrum that wake word models hear
_VARIABLES = ("readvariable", "varhandle")
_EQUAL_ROWS, _SCORE_DIFFERENCE = 0.95, 0.1  # of results that agree


@dataclass(frozen=True)
class SoundScore:
    """A class and its highest score."""

    label: str | None
    index: int
    score: float


@dataclass(frozen=True)
class Segment:
    """A time in which a class is heard, in seconds from the beginning, and its highest score there."""

    label: str | None
    index: int
    score: float
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)  # comparing arrays does not give a bool
class Sound(Result):
    """The scores of the classes over time.

    scores: [rows, classes].
    step_s: The seconds from one row to the next.
    labels: The class names.
    count: The number of classes to list.
    min_score: The score from which a class is heard.
    """

    scores: Array
    step_s: float
    labels: tuple[str, ...] | None = None
    count: int = 5
    min_score: float = _MIN_SCORE

    @property
    def classes(self) -> tuple[SoundScore, ...]:
        """The classes with the highest scores, highest first; ties go to the lower index."""
        highest = self.scores.max(axis=0)
        order = np.argsort(-highest, kind="stable")[: self.count]
        return tuple(SoundScore(self._label(int(i)), int(i), float(highest[i])) for i in order)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The times in which a class is heard, in their order."""
        found = []
        for index in np.nonzero((self.scores >= self.min_score).any(axis=0))[0].tolist():
            heard = np.concatenate([[0], self.scores[:, index] >= self.min_score, [0]]).astype(np.int8)
            starts, ends = (np.nonzero(np.diff(heard) == sign)[0].tolist() for sign in (1, -1))
            for start, end in zip(starts, ends):
                score = float(self.scores[start:end, index].max())
                times = round(start * self.step_s, 6), round(end * self.step_s, 6)
                found.append(Segment(self._label(index), index, score, *times))
        return tuple(sorted(found, key=lambda one: (one.start_s, one.index)))

    def _label(self, index: int) -> str | None:
        return self.labels[index] if self.labels is not None and index < len(self.labels) else None

    def to_json(self) -> JsonValue:
        """Return [{"label", "index", "score"}], the highest score of each class over the whole sound."""
        return [to_json(one) for one in self.classes]


def join_windows(windows: Sequence[Sound]) -> Sound:
    """Join the results of windows that follow one another."""
    return replace(windows[0], scores=np.concatenate([one.scores for one in windows]))


@dataclass(frozen=True)
class SoundClassScores(Decoder[Sound]):
    """Decodes an output of scores: one row of classes for a window, or several rows that share it.

    output: The output's spec.
    windows: How the model takes a sound.
    is_logit: Whether a softmax over the classes is missing.
    labels: The class names.
    count: The number of classes to list.
    min_score: The score from which a class is heard.
    """

    output: TensorSpec
    windows: SoundWindows
    is_logit: bool = False
    labels: tuple[str, ...] | None = None
    count: int = 5
    min_score: float = _MIN_SCORE
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> SoundClassScores | None:
        """Accept samples of a fixed number and a first output of classes, if the task is named."""
        windows = _samples(model)
        if model.task != SoundTask.id or windows is None or not model.outputs:
            return None
        spec = model.outputs[0]
        sizes = [size for size in spec.shape[1:] if size != 1]
        if not sizes or len(sizes) > 2 or not isinstance(sizes[-1], int):
            return None
        operator = (model.output_operator or "").lower()
        is_logit = not any(word in operator for word in ("softmax", "sigmoid", "logistic")) and _is_real(spec)
        labels, words = class_names(model, sizes[-1])
        if RATE_KEY not in model.metadata:
            words = (f"a second of sound has {windows.rate:,} samples (--rate)", *words)
        if is_logit:
            words = (*words, "the outputs are logits, to which a softmax is applied")
        return cls(spec, windows, is_logit, labels, assumptions=words)

    def sounds(self) -> SoundWindows:
        """Return how the model takes a sound."""
        return self.windows

    def configured(self, options: DecodeOptions) -> SoundClassScores:
        """Return a copy with the user's number of classes and lowest score."""
        min_score = self.min_score if options.confidence is None else options.confidence
        return replace(self, count=options.top, min_score=min_score)

    def decode(self, outputs: Mapping[str, Array]) -> Sound:
        """Return the scores of one window. Raises InputError for an output of another layout."""
        name = self.output.name
        real = dequantize(outputs[name], self.output.quantization)
        classes = next((size for size in reversed(self.output.shape[1:]) if size != 1), 1)
        if not isinstance(classes, int) or not real.size or real.size % classes:
            raise InputError(f"'{name}' is {list(real.shape)}, not scores of classes", "convert the model again")
        if not np.isfinite(real).all():
            raise InputError(f"the model computed NaN or infinity in '{name}'", "check the sound's values")
        rows = real.reshape(-1, classes)
        scores = softmax(rows) if self.is_logit else rows
        step_s = self.windows.step / self.windows.rate / len(rows)
        return Sound(scores, step_s, self.labels, self.count, self.min_score)


@dataclass(frozen=True)
class VoiceActivity(SoundClassScores):
    """Decodes Silero's voice activity detector: the probability of speech, with the state of an LSTM."""

    @classmethod
    def recognize(cls, model: ModelFacts) -> VoiceActivity | None:
        """Accept samples and a state [2, n, 128], whose next value is the second output; the rate may be an input."""
        if len(model.inputs) not in (2, 3) or len(model.outputs) != 2:
            return None
        sound, state, *others = model.inputs
        shape = state.shape
        is_state = len(shape) == 3 and shape[0] == 2 and shape[2] == _SILERO_UNITS
        if len(sound.shape) != 2 or not _is_real(sound) or not is_state or any(_size(one) != 1 for one in others):
            return None
        speech, following = sorted(model.outputs, key=lambda one: len(one.shape))
        if _size(speech) != 1 or len(following.shape) != 3:
            return None
        sizes = {step + context: rate for rate, (step, context) in _SILERO.items()}
        length = sound.shape[1]
        rate = _RATE if isinstance(length, str) else sizes.get(length)
        if rate is None:
            return None
        step, context = _SILERO[rate]
        windows = SoundWindows(
            input=sound.name,
            rate=rate,
            step=step,
            context=context,
            rate_input=others[0].name if others else "",
            states={state.name: following.name},
        )
        return cls(speech, windows, labels=class_names(model, 1)[0] or ("speech",))


@dataclass(frozen=True)
class WakeWord(SoundClassScores):
    """Decodes a streaming wake word model, which keeps its state in variables: one probability for each step."""

    @classmethod
    def recognize(cls, model: ModelFacts) -> WakeWord | None:
        """Accept rows of a spectrum of 40 bands and one number, of a model with variables or if the task is named."""
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return None
        (spec,), (output,) = model.inputs, model.outputs
        rows = spec.shape[1] if len(spec.shape) == 3 and spec.shape[2] == _BANDS else None
        operators = " ".join(model.operators).lower().replace("_", "")
        is_stated = model.task == SoundTask.id
        if not isinstance(rows, int) or _size(output) != 1:
            return None
        if not is_stated and not any(word in operators for word in _VARIABLES):
            return None
        windows = SoundWindows(spec.name, _RATE, rows * _ROW_SAMPLES, features=SPECTRUM)
        labels, words = class_names(model, 1)
        heard = "the model takes the spectrum of TensorFlow Lite Micro's audio frontend: 40 bands every 10 ms at 16 kHz"
        return cls(output, windows, labels=labels, assumptions=(heard, *words))


class SoundTask(Task[Sound]):
    """Recognizes what is heard, window after window."""

    id: ClassVar[str] = "sound"
    rank: ClassVar[int] = 12  # before classification: a wake word model answers one probability, too
    decoders = (VoiceActivity, WakeWord, SoundClassScores)

    def compare(self, expected: Sound, actual: Sound) -> Agreement:
        """Results agree if in 95 % of the rows the same classes are heard, or the scores differ by at most 0.1."""
        if expected.scores.shape != actual.scores.shape:
            sizes = " and ".join(format_shape(one.scores.shape) for one in (expected, actual))
            return Agreement(agrees=False, message=f"the scores differ in size: {sizes}")
        off = np.abs(expected.scores - actual.scores)
        heard = (expected.scores >= expected.min_score) == (actual.scores >= expected.min_score)
        equal = float((heard | (off <= _SCORE_DIFFERENCE)).all(axis=1).mean())
        metrics = {"equal_rows": equal, "score_difference": float(off.max()), "mean_difference": float(off.mean())}
        words = f"the same is heard in {equal:.2%} of {len(off)} rows, scores differ by up to {off.max():.3f}"
        return Agreement(equal >= _EQUAL_ROWS, metrics, words)


def _samples(model: ModelFacts) -> SoundWindows | None:
    """Return the windows of a model whose only input apart from states is a fixed number of samples."""
    if not model.inputs:
        return None
    (spec, *others), states = model.inputs, model.states
    sizes = [size for size in spec.shape[len(spec.shape) > 1 :] if size != 1]  # without the batch
    fixed = [size for size in sizes if isinstance(size, int)]
    is_sound = _is_real(spec) or spec.quantization is not None
    if len(sizes) != 1 or not fixed or not is_sound or any(one.name not in states for one in others):
        return None
    return SoundWindows(spec.name, _rate(model), fixed[0], states=states)


def _rate(model: ModelFacts) -> int:
    text = model.metadata.get(RATE_KEY, "")
    return int(text) if text.isdecimal() and 0 < len(text) < 7 and int(text) > 0 else _RATE


def _is_real(spec: TensorSpec) -> bool:
    return spec.dtype.startswith("float")


def _size(spec: TensorSpec) -> int:
    return int(np.prod(concrete_shape(spec)))
