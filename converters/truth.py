"""What the source takes and answers, established before anything is converted: what a result is held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from converters.calibration import PIXELS, Calibration, from_arrays, from_pixels, lint, split, spread
from converters.calibration_doubts import doubts
from converters.input_range import pixel_range
from converters.meaning import Said, labels_of, meaning_of
from converters.proof import Samples, source_answers
from converters.request import Request
from converters.source import Source
from converters.synthetic import synthetic
from runtimes.arrays import Arrays, load_arrays
from runtimes.artifact import Artifact, OutputMeaning, Preprocess, TensorSpec
from runtimes.errors import InputError
from runtimes.registry import for_format
from runtimes.session import RunOptions, Session


@dataclass(frozen=True)
class Truth:
    """What is known of the source before anything is converted.

    `answers` are its outputs on the inputs in `samples`; `calibration` other inputs, None where nothing is quantised;
    `notes` lines that the user should read.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: Samples
    calibration: Calibration | None
    answers: Arrays
    preprocess: Preprocess | None
    labels: list[str] | None
    meaning: OutputMeaning | None
    notes: tuple[str, ...]


def establish(request: Request, source: Source) -> Truth:
    """Open the source and run it; every error that the request holds comes here, before any conversion."""
    preprocess = request.preprocess or source.artifact.manifest.preprocess
    with opened(source.artifact) as session:
        _check_fixed(session, source)
        labels = labels_of(request.labels, source.artifact, session.outputs[0].shape[-1])
        samples, calibration, notes = _samples(request, source, session, preprocess)
        found = source_answers(session, samples.inputs)
        said = Said(request.kind, request.label_offset)
        meaning = meaning_of(said, source.artifact, found[session.outputs[0].name], labels)
        inputs, outputs = tuple(session.inputs), tuple(session.outputs)
        if calibration is not None:
            notes += doubts(session, samples.inputs, found, meaning)
        notes += _assumptions(source.artifact, request, inputs, preprocess, meaning)
        return Truth(inputs, outputs, samples, calibration, found, preprocess, labels, meaning, tuple(notes))


def _samples(
    request: Request, source: Source, session: Session, preprocess: Preprocess | None
) -> tuple[Samples, Calibration | None, list[str]]:
    """The inputs of the proof and those to calibrate with, which never overlap."""
    if request.samples is None:
        pixels = pixel_range(source.model, source.format) if preprocess is None else None
        return Samples(synthetic(session.inputs, preprocess, pixels), "synthetic"), None, []
    arrays = load_arrays(request.samples, hint="give a folder of pictures, or an .npz written with numpy.savez")
    pictures = set(arrays) == {PIXELS}
    given = from_pixels(arrays[PIXELS], session.inputs, preprocess) if pictures else from_arrays(arrays, session.inputs)
    kind = "pictures" if pictures else "arrays"
    if request.options.precision != "int8":
        return Samples(spread(given), kind), None, []
    notes = lint(given, preprocess)
    calibration, held_out = split(given)
    return Samples(held_out, kind), calibration, notes


def _assumptions(
    source: Artifact,
    request: Request,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    meaning: OutputMeaning | None,
) -> list[str]:
    """What a bare source did not say of itself and the artifact will hold all the same, or will lack."""
    if not source.is_bare:
        return []
    lines = []
    takes_pictures = len(inputs) == 1 and len(inputs[0].shape) == 4
    if preprocess is None and takes_pictures:
        lines.append("how pictures become the input was not said (--preprocess), so the artifact does not know it")
    elif preprocess is not None:
        crop = f"{preprocess.crop[1]} × {preprocess.crop[0]}"
        resized = f"shorter side {preprocess.size}, centre crop {crop}" if preprocess.resize != "stretch" else crop
        lines.append(f"pictures go in as {resized}, {preprocess.method}, {preprocess.color}, {preprocess.layout}")
    if meaning is not None and request.kind is None:
        lines.append("the output is taken for a probability, as each of its answers sums to one")
    return lines


def _check_fixed(session: Session, source: Source) -> None:
    for spec in session.inputs:
        if any(isinstance(size, str) for size in spec.shape[1:]):
            what = f"{source.model}: input '{spec.name}' has the free shape {list(spec.shape)}"
            raise InputError(what, "fix its size first; only the batch may be free")


def session_of(artifact: Artifact) -> Session:
    """A session of the format's preferred engine, to be closed."""
    return for_format(artifact.manifest.format).open(artifact, RunOptions())


@contextmanager
def opened(artifact: Artifact) -> Iterator[Session]:
    """A session of the format's preferred engine, closed at the end."""
    session = session_of(artifact)
    try:
        yield session
    finally:
        session.close()
