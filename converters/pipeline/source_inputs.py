"""Choose the inputs of a verification, the user's or synthetic ones, and run the source on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from converters.calibration.dataset import (
    PIXELS,
    Calibration,
    from_arrays,
    from_pixels,
    lint,
    sequence,
    split,
    spread,
)
from converters.calibration.input_range import pixel_range
from converters.calibration.input_roles import input_roles
from converters.calibration.sizes import Sizes, candidate_sizes, free_names, other_sizes, resize, with_sizes
from converters.calibration.synthetic import DISTRIBUTIONS, SAMPLES, Change, make_inputs, plain
from converters.library_calls import loading
from converters.onnx.reference_session import open_source_session
from converters.pipeline.request import ConvertRequest
from converters.pipeline.verification import GIVE_REAL_INPUTS, SYNTHETIC, Samples, source_answers
from converters.registry import converter
from converters.sources.source import OpenedSource
from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.engine_support.tflite import has_variables
from runtimes.errors import EdgeError, EngineError, InputError, ProofError
from runtimes.session import Closeable, Session, format_shape
from runtimes.shapes import free_axes, suggestion

_OTHERS = 4  # samples in another size
_SEQUENCE = 64  # synthetic samples of a model with a state, which may only answer after dozens of steps
_LIMITS_FOR_FEW = ("fp32", "fp16")  # the limits of other precisions need more samples than a second batch size has


class ShapedSession(Closeable):
    """A session whose specs have sizes for the free axes; the model that it runs is unchanged."""

    def __init__(self, session: Session, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._session = session
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.threads = session.threads

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Session`."""
        return self._session.run(feeds)

    def close(self) -> None:
        """See `Session`."""
        self._session.close()


@dataclass(frozen=True, kw_only=True)
class SizedSamples:
    """Samples in another size than the main ones, and the source's answers to them."""

    sizes: str
    samples: Samples
    answers: Arrays


@dataclass(frozen=True, kw_only=True)
class SourceInputs:
    """The inputs of a proof.

    samples: Inputs for verification.
    answers: The source's answers to them.
    calibration: Other inputs, None if nothing is quantized.
    others: Inputs in other sizes, where the result keeps sizes free.
    notes: Notes for the user.
    """

    samples: Samples
    answers: Arrays
    calibration: Calibration | None = None
    others: tuple[SizedSamples, ...] = ()
    notes: tuple[str, ...] = ()


def source_inputs(
    request: ConvertRequest, source: OpenedSource, session: Session, preprocess: Preprocess | None
) -> SourceInputs:
    """Return the inputs for verification and for calibration, which never overlap, and the source's answers."""
    if request.samples is None:
        return _synthetic(request, source, session, preprocess)
    arrays = load_arrays(request.samples, hint="pass a folder of pictures, or an .npz written with numpy.savez")
    pictures = set(arrays) == {PIXELS}
    given = from_pixels(arrays[PIXELS], session.inputs, preprocess) if pictures else from_arrays(arrays, session.inputs)
    kind, notes, calibration = "pictures" if pictures else "arrays", list[str](), None
    is_sequence = keeps_state(source)  # every fifth step of one would be no sequence
    if _is_calibrated(request) and not is_quantized_source(source):
        notes = lint(given, preprocess)
        calibration, given = split(given)
    samples = Samples(sequence(given) if is_sequence else spread(given), kind)
    found = source_answers(session, samples)
    tried = (_resize(samples, session.inputs, sizes) for sizes in other_sizes(session.inputs, given.samples))
    resized_samples = _first_that_runs(session, tried)
    return SourceInputs(
        samples=samples,
        answers=found,
        calibration=calibration,
        others=(*resized_samples, *_batches(request, session, samples)),
        notes=(*notes, *_one_size(session.inputs, resized_samples)),
    )


def _is_calibrated(request: ConvertRequest) -> bool:
    """Return whether a step may quantize, so that some samples are kept for that."""
    return request.options.precision == "int8" and not all(converter(name).packs for name in request.steps)


def keeps_state(source: OpenedSource) -> bool:
    """Return whether the model keeps a state from one inference to the next, as its manifest or its variables say."""
    if source.artifact.manifest.states:
        return True
    return source.format == "tflite" and has_variables(source.model)


def is_quantized_source(source: OpenedSource) -> bool:
    """Return whether the source is quantized already, so that all samples are for verification."""
    if source.format == "tflite":
        from converters.tflite import reader

        return reader.is_quantized(source.model)
    if source.format == "onnx":
        from converters.onnx import quantized_graph

        return quantized_graph.is_quantized(source.model)
    return False


def check_sizes(request: ConvertRequest, source: OpenedSource, inputs: Sequence[TensorSpec]) -> None:
    """Raise InputError, with a `--shape`, for a free size if a step needs fixed ones."""
    free = [spec for spec in inputs if free_axes(spec)]
    steps = [converter(name) for name in request.steps]
    for place, step in enumerate(steps):
        options = request.options
        if place + 1 < len(steps):
            options = replace(options, opset=steps[place + 1].source_opset(options))
        if free and not step.keeps_free_sizes(options):
            shapes = " ".join(suggestion(spec, _metadata(source)) for spec in free)
            what = f"input '{free[0].name}' has the free shape {format_shape(free[0].shape)}"
            raise InputError(f"{source.model}: {what}; {step.target} needs fixed sizes", f"fix them, such as {shapes}")


def _metadata(source: OpenedSource) -> dict[str, str]:
    """Return the properties in an ONNX file, and the size of pictures that an artifact names."""
    preprocess = source.artifact.manifest.preprocess
    if preprocess is not None:
        return {"imgsz": str(list(preprocess.crop))}
    if source.format != "onnx":
        return {}
    with loading(source.model, "ONNX"):
        import onnx

        return {one.key: one.value for one in onnx.load(source.model, load_external_data=False).metadata_props}


def _synthetic(
    request: ConvertRequest, source: OpenedSource, session: Session, preprocess: Preprocess | None
) -> SourceInputs:
    """Generate synthetic inputs in the first sizes that the source runs with.

    Other distributions are tried in turn if the source answers the usual one with NaN, or always the same, and then
    longer sequences if it keeps a state.
    """
    pixels = pixel_range(source.model, source.format) if preprocess is None else None
    roles = input_roles(source.model, source.format, session.inputs)

    def made_up(sizes: Sizes, change: Change | None, least: int) -> Samples:
        inputs = with_sizes(session.inputs, sizes)
        return Samples(make_inputs(inputs, preprocess, pixels, roles, change, least), SYNTHETIC)

    has_numbers = any(role.bounds is not None for role in roles.values())
    refusals: list[EdgeError] = []
    counts = (SAMPLES, _SEQUENCE) if keeps_state(source) else (SAMPLES,)
    for sizes in candidate_sizes(session.inputs):
        for least, (name, change) in product(counts, DISTRIBUTIONS.items()):
            samples = made_up(sizes, change, least)
            try:
                found = _made_up_answers(source, session, samples)
            except ProofError as error:
                refusals.append(error)
                continue
            except EngineError as error:
                refusals.append(error)
                if change is None and has_numbers:
                    continue
                if not sizes:
                    raise
                break
            tried = (made_up(other, change, least) for other in other_sizes(session.inputs, samples.inputs.samples))
            resized_samples = _first_that_runs(session, tried)
            what = "not finite, or always the same, for the usual synthetic inputs"
            note = f"the source's output is {what}: {name} values were used; pass real ones with --calibration"
            return SourceInputs(
                samples=samples,
                answers=found,
                others=(*resized_samples, *_batches(request, session, samples)),
                notes=(*([note] if change not in (None, plain) else []), *_one_size(session.inputs, resized_samples)),
            )
    raise _no_size(source, session.inputs, refusals[0])


def _made_up_answers(source: OpenedSource, session: Session, samples: Samples) -> Arrays:
    """Return the source's answers to made-up inputs, from a reset state if it keeps one.

    An error says that they are made up, and may not suit it.
    """
    try:
        if keeps_state(source):
            with open_source_session(source.artifact) as new:  # only a new interpreter resets TFLite's variables
                return source_answers(new, samples)
        return source_answers(session, samples)
    except (EngineError, InputError) as error:
        raise type(error)(error.message, f"{error.hint}; {GIVE_REAL_INPUTS}", error.details) from error


def _no_size(source: OpenedSource, inputs: Sequence[TensorSpec], refusal: EdgeError) -> EdgeError:
    """Return the first refusal, or for a model with free sizes one that asks for them."""
    free = [spec for spec in inputs if free_axes(spec)]
    if not free or isinstance(refusal, ProofError):
        return refusal
    shapes = " ".join(suggestion(spec, _metadata(source)) for spec in free)
    what = f"{source.model}: input '{free[0].name}' has the free shape {format_shape(free[0].shape)}"
    return InputError(f"{what}, and the model runs in none of the sizes that were tried", f"specify its size: {shapes}")


def _first_that_runs(session: Session, tried: Iterable[Samples]) -> tuple[SizedSamples, ...]:
    """Return the first of the `tried` samples that the source runs, and its answers; empty if it runs none."""
    for other in tried:
        few = Samples(Calibration({name: one[:_OTHERS] for name, one in other.inputs.samples.items()}), other.kind)
        try:
            return (SizedSamples(sizes=sizes_text(few), samples=few, answers=source_answers(session, few)),)
        except (EngineError, InputError, ProofError):
            continue
    return ()


def _batches(request: ConvertRequest, session: Session, samples: Samples) -> tuple[SizedSamples, ...]:
    """Return pairs of samples as batches of two, if the batch of every input is free and the source runs them."""
    is_free = all(spec.shape and isinstance(spec.shape[0], str) for spec in session.inputs)
    if not is_free or request.options.precision not in _LIMITS_FOR_FEW or len(samples.inputs) < 2 * _OTHERS:
        return ()
    pairs = {
        name: values[: 2 * _OTHERS].reshape(_OTHERS, 2 * values.shape[1], *values.shape[2:])
        for name, values in samples.inputs.samples.items()
    }
    batches = Samples(Calibration(pairs), samples.kind)
    try:
        return (SizedSamples(sizes=sizes_text(batches), samples=batches, answers=source_answers(session, batches)),)
    except (EngineError, InputError, ProofError):
        return ()


def _resize(samples: Samples, inputs: Sequence[TensorSpec], sizes: Sizes) -> Samples:
    return Samples(Calibration(resize(samples.inputs.samples, inputs, sizes)), samples.kind)


def sizes_text(samples: Samples) -> str:
    """Return the shapes of samples, as in `--shape`: `ids=1x128, mask=1x128`."""
    shapes = {name: "x".join(map(str, values.shape[1:])) for name, values in samples.inputs.samples.items()}
    return ", ".join(f"{name}={shape}" for name, shape in shapes.items())


def _one_size(inputs: Sequence[TensorSpec], others: Sequence[SizedSamples]) -> list[str]:
    if not free_names(inputs) or others:
        return []
    return ["the source runs in one of the sizes that were tried, so the proof says nothing about others (--shape)"]
