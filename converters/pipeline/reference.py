"""The reference of a conversion: the source's inputs and outputs, recorded before anything is converted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.calibration.dataset import Calibration, to_model_dtypes
from converters.calibration.warnings import check_calibration
from converters.onnx.fixed_shapes import is_plain, write_plain, write_with_shapes
from converters.onnx.reference_session import is_reference, open_source_session
from converters.pipeline.request import PLAIN, SIZES, ConvertRequest
from converters.pipeline.source_inputs import (
    ShapedSession,
    SizedSamples,
    check_sizes,
    keeps_state,
    sizes_text,
    source_inputs,
)
from converters.pipeline.verification import Samples
from converters.proof.onnx_origins import random_node, with_deciding_node
from converters.sources.source import OpenedSource
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, OutputMeaning, Preprocess, TensorSpec
from runtimes.artifact.labels import LABELS, read_labels
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.session import Session
from runtimes.shapes import with_shapes
from runtimes.tasks.classification import default_label_offset
from runtimes.verification.metrics import sums_to_one
from runtimes.verification.rows import padded_axis, same_size
from runtimes.verification.selfcheck import answers

_ROUNDING = 1e-5  # of the largest value: several threads may sum in another order
_STATEFUL = ("the model keeps a state from one inference to the next: the result is proven over a sequence of them",)
_WITHOUT_RANDOMNESS = "export it without its random layers, or with a fixed seed inside"
_BY_REFERENCE = ("ONNX Runtime has no kernel for an operator of the source: ONNX's reference implementation ran it",)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Facts about the source, recorded before anything is converted.

    samples: Inputs for verification.
    answers: The source's outputs for `samples`.
    calibration: Other inputs, None if nothing is quantized.
    notes: Notes for the user.
    stateful: Whether it keeps a state, so that `answers` hold for all samples in order from a reset state.
    others: Inputs in other sizes, and the source's answers to them.
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
    stateful: bool = False
    others: tuple[SizedSamples, ...] = ()

    @property
    def sizes(self) -> str:
        """The shapes of `samples`, as in `--shape`."""
        return sizes_text(self.samples)


def run_source(request: ConvertRequest, source: OpenedSource) -> Reference:
    """Open the source and run it. Errors in the request are raised here, before any conversion."""
    preprocess = request.preprocess or source.artifact.manifest.preprocess
    with open_source_session(source.artifact) as session:
        shapes = request.options.shapes
        if shapes:
            session = ShapedSession(session, with_shapes(session.inputs, shapes), session.outputs)
        check_sizes(request, source, session.inputs)
        first = session.outputs[0]
        labels = labels_of(request.labels, source.artifact, first.shape[-1] if first.shape else 1)
        try:
            found = source_inputs(request, source, session, preprocess)
        except InputError as error:
            raise with_deciding_node(error, source.model, source.format) from None
        sequence = stateful_answers(source, session, found.samples, found.answers)
        if sequence is not None:
            found = replace(found, answers=sequence, others=())  # other sizes would start from the remaining state
        hint = OutputHint(kind=request.kind, label_offset=request.label_offset, kind_in_file=request.kind_in_file)
        meaning = output_semantics(hint, source.artifact, found.answers[first.name], labels)
        notes = list(found.notes)
        if found.calibration is not None:
            notes += check_calibration(session, found.samples.inputs, found.answers, meaning)
        notes += _BY_REFERENCE if is_reference(session) else ()
        notes += _assumptions(source.artifact, request, session.inputs, preprocess, meaning, found.answers[first.name])
        return Reference(
            inputs=tuple(session.inputs),
            outputs=_reshape(session.outputs, found.answers) if shapes else tuple(session.outputs),
            samples=found.samples,
            calibration=found.calibration,
            answers=found.answers,
            preprocess=preprocess,
            labels=labels,
            meaning=meaning,
            notes=(*notes, *(_STATEFUL if sequence else ())),
            stateful=sequence is not None,
            others=found.others,
        )


def stateful_answers(source: OpenedSource, session: Session, samples: Samples, found: Arrays) -> Arrays | None:
    """Return the answers to `samples` from a reset state if the source keeps one; None for a function of its inputs.

    `session` has answered `samples` with `found`. Raises ProofError for a source that draws random numbers, which
    nothing can be compared with.
    """
    feeds = to_model_dtypes(session.inputs, samples.inputs.samples)
    if not keeps_state(source):  # it may only show after dozens of samples, so the file has the last word
        first = answers(session, {name: values[:1] for name, values in feeds.items()})
        if _are_same(first, {name: values[:1] for name, values in found.items()}):
            return None
    random = random_node(source.model) if source.format == "onnx" else None
    if random is not None:
        raise ProofError(f"the source draws random numbers: {random}", _WITHOUT_RANDOMNESS)
    sequences = []
    for _ in range(2):
        with open_source_session(source.artifact) as new:  # only a new interpreter resets TFLite's variables
            sequences.append(answers(new, feeds))
    if not _are_same(*sequences):
        what = "the source answers the same input differently each time: it draws random numbers"
        raise ProofError(what, _WITHOUT_RANDOMNESS)
    return sequences[0]


def _are_same(first: Arrays, second: Arrays) -> bool:
    return all(_are_alike(*same_size(values, second[name])) for name, values in first.items())


def _are_alike(first: Array, second: Array) -> bool:
    largest = float(np.abs(np.nan_to_num(second)).max(initial=0))
    return first.shape == second.shape and np.allclose(
        first, second, rtol=0, atol=_ROUNDING * max(1.0, largest), equal_nan=True
    )


def _reshape(outputs: Sequence[TensorSpec], answers: Arrays) -> tuple[TensorSpec, ...]:
    """Return the outputs in the shapes of the answers [n, *shape]."""
    return tuple(replace(spec, shape=_shape_of(spec, answers[spec.name])) for spec in outputs)


def _shape_of(spec: TensorSpec, values: Array) -> tuple[int | str, ...]:
    """Return the shape in the answers; an axis along which they are padded stays free."""
    free = padded_axis(values, spec.shape)
    return tuple(spec.shape[axis] if axis == free else size for axis, size in enumerate(values.shape[1:]))


def _assumptions(
    source: Artifact,
    request: ConvertRequest,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    meaning: OutputMeaning | None,
    answers: Array,
) -> list[str]:
    """Describe what was assumed for a bare source, and what the artifact will lack."""
    if not source.is_bare:
        return []
    lines = []
    takes_pictures = len(inputs) == 1 and len(inputs[0].shape) == 4
    if preprocess is None and takes_pictures:
        lines.append("the preprocessing is unknown (no --preprocess was given), so the artifact does not contain it")
    elif preprocess is not None:
        crop = f"{preprocess.crop[1]} × {preprocess.crop[0]}"
        resized = {
            "shorter_side": f"shorter side {preprocess.size}, center crop {crop}",
            "letterbox": f"{crop} with borders of gray {preprocess.pad}",
        }.get(preprocess.resize, crop)
        lines.append(f"pictures are passed as {resized}, {preprocess.method}, {preprocess.color}, {preprocess.layout}")
    if meaning is not None and request.kind is None:
        why = "the file's last operator shows it"
        if sums_to_one(answers):
            why = "each answer sums to one"
        lines.append(f"the output is assumed to be a {meaning.kind}, because {why}")
    if meaning is not None and request.label_offset is None and meaning.labels is None and meaning.label_offset == 1:
        lines.append("the first of the 1001 classes is assumed to be the background, as in ImageNet (--label-offset)")
    return lines


@dataclass(frozen=True, kw_only=True)
class OutputHint:
    """The description of the output: `kind` probability or logit, `label_offset` 0 or 1; None if unknown.

    The first two are the user's; `kind_in_file` is what the source's file shows.
    """

    kind: str | None = None
    label_offset: int | None = None
    kind_in_file: str | None = None


def labels_of(file: Path | None, source: Artifact, classes: int | str) -> list[str] | None:
    """Return the labels in `file`, else the source's own. Raises InputError if they do not match the classes."""
    labels = read_labels(file) if file else source.labels()
    if labels is not None and len(labels) != classes:
        what = f"{file or LABELS} holds {len(labels)} labels, the output {classes} classes"
        raise InputError(what, "write one label per line, one for each class, including the background")
    return labels


def output_semantics(
    hint: OutputHint, source: Artifact, answers: Array, labels: list[str] | None
) -> OutputMeaning | None:
    """Return the output's meaning: from the user, the manifest, the source's outputs [n, classes], or the file.

    Outputs that are distributions are probabilities. (In 8 bits their sums are not one.) Nothing is assumed about
    others: returns None, or raises UsageError if there are labels.
    """
    known = source.manifest.output
    kind = hint.kind or (known.kind if known else None)
    if kind is None and sums_to_one(answers):
        kind = "probability"
    kind = kind or hint.kind_in_file
    if kind is None:
        if labels is not None:
            what = "there are labels, but the source's outputs do not show whether they are probabilities or logits"
            raise UsageError(what, "pass --output probability or --output logit")
        return None
    offset = hint.label_offset
    if offset is None:
        offset = known.label_offset if known else default_label_offset(labels, answers.shape[-1])
    return OutputMeaning(kind, offset, LABELS if labels is not None else None)


@contextmanager
def reopen_source(source: OpenedSource, reference: Reference, request: ConvertRequest) -> Iterator[Session]:
    """Open the source again, in the sizes of the request."""
    with open_source_session(source.artifact) as session:
        yield ShapedSession(session, reference.inputs, reference.outputs) if request.options.shapes else session


def with_plain_graph(request: ConvertRequest, source: OpenedSource) -> tuple[ConvertRequest, OpenedSource]:
    """Replace an ONNX source with local functions or sparse constants by one without, which every converter reads."""
    if source.format != "onnx" or not request.steps or is_plain(source.model):
        return request, source
    return _replaced(request, source, write_plain(source.model, request.scratch / PLAIN))


def with_fixed_sizes(request: ConvertRequest, source: OpenedSource) -> tuple[ConvertRequest, OpenedSource]:
    """Replace an ONNX source by one of the requested sizes; the converters of other sources set them themselves.

    Raises UsageError for sizes that do not fit the model's inputs, and for a source that is packed unchanged.
    """
    shapes = request.options.shapes
    if not shapes:
        return request, source
    if source.format != "onnx":
        if not request.steps:
            what = f"{source.model} is packed unchanged, so --shape would have no effect"
            raise UsageError(what, "leave it out, or convert to another format")
        return request, source
    return _replaced(request, source, write_with_shapes(source.model, shapes, request.scratch / SIZES))


def _replaced(request: ConvertRequest, source: OpenedSource, model: Path) -> tuple[ConvertRequest, OpenedSource]:
    """Return the source as `model`, which was written from it, and the request with the source's own origin."""
    manifest, folder = source.artifact.manifest, model.parent
    if manifest.output is not None and manifest.output.labels is not None:
        shutil.copyfile(source.artifact.path / manifest.output.labels, folder / manifest.output.labels)
    artifact = Artifact(folder, replace(manifest, model=model.name, inputs=(), outputs=()))
    return replace(request, origin=request.origin or source.origin()), replace(source, artifact=artifact)
