"""Judge a result in which an ArgMax or TopK chooses other indices than in the source.

Where two values are nearly equal, rounding alone decides which index is chosen, and everything computed from it jumps:
an int8 pose network that names another cell of its heat map puts a key point elsewhere. So three things are compared
that do not jump: the values that are chosen from, whether the result chooses the best of its own, and the outputs that
it computes with the source's choices.

An int8 TFLite source may be so noisy that the kernels of LiteRT differ by more than the limits. What the result differs
by is then compared with that, part by part. Measured on MoveNet with 65 sets of 32 pictures of a person: in each of its
17 heat maps the signal is 1 to 8 dB above what LiteRT's own kernels differ by, and what OpenVINO and ONNX Runtime
differ by is at most 2.8 dB more than that. For two maps that are exchanged, the signal is 3 dB below.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.calibration.dataset import to_model_dtypes
from converters.pipeline.execute import as_artifact
from converters.pipeline.explanation import FailedProof, comparable_graphs
from converters.pipeline.reference import Reference
from converters.pipeline.tensor_matching import reshape_answers
from converters.pipeline.verification import Verification, complete_checks, explain_by_rounding, map_tensors, verify
from converters.proof.choice_graphs import Choice, show_choices, take_choices
from converters.proof.origins import whole_output
from converters.tflite.interpreter import other_kernels
from runtimes.arrays import Array, Arrays
from runtimes.artifact import TensorSpec
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import first_line
from runtimes.registry import open_session
from runtimes.session import Session
from runtimes.verification.selfcheck import answers

_FEWEST_EQUAL = 0.5  # of the indices that the source's own kernels choose alike: fewer is more than rounding
_FEWEST_SAMPLES = 32  # to compare noise with noise: with 16, the same noise differs by 7 dB
_MAX_NOISE = 2.0  # times the noise of the source: 3 dB
_FEWEST_VALUES = 1000  # of a slice whose noise means something
_ROUNDING = 1e-5  # of the range of scores: what an engine may round between their output and the choice
_WITHIN_NOISE = ", as far as the kernels of LiteRT agree on the source themselves"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChoiceVerdict:
    """The verdict with the source's choices.

    proof: Of the scores, and of the outputs that are computed with the source's choices.
    notes: What differs, for the user; empty if the proof failed.
    equal: The share of the indices that the result chooses as the source does, by sample [n].
    """

    proof: Verification
    notes: tuple[str, ...]
    equal: Array

    def decide(self, plain: Verification) -> Verification:
        """Return this proof if it passed, else the `plain` one, which says what this one found."""
        first = self.proof.message.split("; ")[0]
        return self.proof if self.proof.passed else replace(plain, message=f"{plain.message}; {first}")


def verify_choices(failed: FailedProof, checks: Sequence[OutputCheck]) -> ChoiceVerdict | None:
    """Compare the result with its source where both choose the same indices; None if neither chooses any."""
    try:
        return _verify(failed, checks)
    except Exception as error:  # whatever cannot be compared in this way leaves the verdict as it is
        _log.debug("the choices are not compared: %s", first_line(error))
        return None


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A model, and what its copy that shows its choices answers to the samples.

    outputs: The outputs of the model itself; `found` has those that show its choices, too.
    """

    path: Path
    format: str
    folder: Path
    copy: Path
    choices: Sequence[Choice]
    outputs: tuple[TensorSpec, ...]
    found: Arrays

    def indices(self, choices: Sequence[Choice]) -> Array:
        """Return the indices of all samples, [n, indices]."""
        return np.concatenate([_rows(self.found[one.picked]) for one in choices], axis=1)

    def with_choices(self, pairs: Sequence[tuple[Choice, Choice]], other: _Model) -> tuple[Path, Arrays]:
        """Return a copy that takes its indices, and those of `other` for it; each pair begins with one of `other`."""
        shapes = {own.picked: self.found[own.picked].shape for _, own in pairs}
        folder = self.folder / "with-choices"
        folder.mkdir(exist_ok=True)
        copy = take_choices(self.path, self.format, folder, {name: shape[1:] for name, shape in shapes.items()})
        return copy, {own.picked: other.found[one.picked].reshape(shapes[own.picked]) for one, own in pairs}


def _verify(failed: FailedProof, checks: Sequence[OutputCheck]) -> ChoiceVerdict | None:
    graphs, reference = comparable_graphs(failed), failed.reference
    if graphs is None or reference.stateful:
        return None
    source, result = (
        _model(reference, *graph, failed.scratch / "choices" / name)
        for graph, name in zip(graphs, ("source", "result"), strict=True)
    )
    truth = _by_names_of(result, source.outputs, source.found, failed.given)
    pairs = _pairs(source, result)
    if not pairs or not verify("fp32", failed.truth, truth).passed:  # the copy of the source is not the source
        return None
    copy, picked = result.with_choices(pairs, source)
    with open_session(as_artifact(copy, result.format)) as session:
        forced = _answers(reference, session, picked)[1]
    given = {name: forced[name] for name in failed.given}
    for check in checks:
        if check.kind != "values":  # labels may be the choices themselves
            given[check.name] = failed.given[check.name]
    names = [f"{one.tensor} (before {one.operator})" for one, _ in pairs]
    for name, (one, other) in zip(names, pairs, strict=True):
        truth[name] = source.found[one.scores]
        given[name] = forced[other.scores].reshape(truth[name].shape)
    scores = [OutputCheck(name, "values", whole_output(truth[name].shape[1:])) for name in names]
    checks = (*checks, *complete_checks(scores, truth, given, ()))
    proof, least, within = verify(failed.precision, truth, given, checks), 1.0, ""
    if len(reference.samples.inputs) >= _FEWEST_SAMPLES and source.format == "tflite":
        noisy, own = _noisy(reference, source, result, names, failed.given)
        least = float((own == source.indices(source.choices)).mean())
        if not proof.passed:
            rest = verify(failed.precision, truth, _beyond(truth, given, noisy, checks), checks)
            proof, within = explain_by_rounding(proof, rest), _WITHIN_NOISE
    verdict = _verdict(proof, pairs, source, result, _FEWEST_EQUAL * least)
    return replace(verdict, notes=tuple(f"{note}{within}" for note in verdict.notes))


def _model(reference: Reference, path: Path, model_format: str, folder: Path) -> _Model:
    folder.mkdir(parents=True, exist_ok=True)
    copy, choices = show_choices(path, model_format, folder)
    with open_session(as_artifact(copy, model_format)) as session:
        outputs, found = _answers(reference, session, {})
    shown = {name for one in choices for name in (one.scores, one.picked)}
    return _Model(
        path=path,
        format=model_format,
        folder=folder,
        copy=copy,
        choices=choices,
        outputs=tuple(spec for spec in outputs if spec.name not in shown),
        found=found,
    )


def _answers(
    reference: Reference, session: Session, picked: Mapping[str, Array]
) -> tuple[tuple[TensorSpec, ...], Arrays]:
    """Run all samples, with the indices `picked` by the names of their inputs; returns outputs, and answers."""
    inputs = [spec for spec in session.inputs if spec.name not in picked]
    feeds = to_model_dtypes(inputs, map_tensors(reference.inputs, inputs, reference.samples.inputs.samples))
    indices = {spec.name: picked[spec.name].astype(spec.dtype) for spec in session.inputs if spec.name in picked}
    return tuple(session.outputs), answers(session, {**feeds, **indices})


def _by_names_of(result: _Model, outputs: Sequence[TensorSpec], found: Arrays, given: Arrays) -> Arrays:
    """Return the source's `outputs` with the names, axes and shapes of the result's."""
    renamed = map_tensors(outputs, result.outputs, found, "output")
    return {name: reshape_answers(renamed[name], values) for name, values in given.items()}


def _pairs(source: _Model, result: _Model) -> list[tuple[Choice, Choice]]:
    """Pair the choices of both models, by their sizes and then in order; [] if one has no partner."""
    if len(source.choices) != len(result.choices):
        return []
    left, pairs = list(result.choices), []
    for one in source.choices:
        sizes = _sizes(source, one)
        other = next((other for other in left if _sizes(result, other) == sizes), None)
        if other is None:
            return []
        left.remove(other)
        pairs.append((one, other))
    return pairs


def _sizes(model: _Model, choice: Choice) -> tuple[int, int]:
    return model.found[choice.scores].size, model.found[choice.picked].size


def _noisy(
    reference: Reference, source: _Model, result: _Model, names: Sequence[str], given: Arrays
) -> tuple[Arrays, Array]:
    """Run the source in LiteRT's other kernels.

    Returns the outputs and the scores with the choices of XNNPACK's, by the result's names, and the indices that they
    choose themselves.
    """
    with other_kernels(source.copy) as session:
        free = _answers(reference, session, {})[1]
    copy, picked = source.with_choices([(one, one) for one in source.choices], source)
    with other_kernels(copy) as session:
        found = _answers(reference, session, picked)[1]
    scores = {name: found[one.scores] for name, one in zip(names, source.choices, strict=True)}
    own = np.concatenate([_rows(free[one.picked]) for one in source.choices], axis=1)
    return {**_by_names_of(result, source.outputs, found, given), **scores}, own


def _beyond(truth: Arrays, given: Arrays, noisy: Arrays, checks: Sequence[OutputCheck]) -> Arrays:
    """Return the result's answers without the differences that are not larger than the source's own noise."""
    found = dict(given)
    for check in (one for one in checks if one.kind == "values" and given[one.name].shape == truth[one.name].shape):
        expected, values = truth[check.name], given[check.name].copy()
        for part in check.parts:
            place = (slice(None),) * (part.axis + 1) + (slice(part.start, part.stop),)
            place = place[: expected.ndim]
            errors, noise = (np.square(one[place] - expected[place]) for one in (values, noisy[check.name]))
            if all(mine <= _MAX_NOISE * own for mine, own in zip(_powers(errors), _powers(noise), strict=True)):
                values[place] = expected[place]
        found[check.name] = values
    return found


def _powers(errors: Array) -> Iterator[float]:
    """Yield the mean of squares [n, ...], and the means of slices that are large enough to tell."""
    yield float(errors.mean())
    for axis in range(1, errors.ndim):
        if errors.shape[axis] > 1 and errors.size // errors.shape[axis] >= _FEWEST_VALUES:
            yield from np.moveaxis(errors, axis, 0).reshape(errors.shape[axis], -1).mean(axis=1).tolist()


def _verdict(
    proof: Verification, pairs: Sequence[tuple[Choice, Choice]], source: _Model, result: _Model, least: float
) -> ChoiceVerdict:
    """Combine the comparison with what the result itself chooses; `least` is the share of indices to be equal."""
    names = ", ".join(sorted({one.operator for one, _ in pairs}))
    same = source.indices([one for one, _ in pairs]) == result.indices([other for _, other in pairs])
    failures = [] if proof.passed else [f"with the source's choices at {names}, {proof.message}"]
    for one, other in pairs:
        if not _chooses_best(one, result.found[other.scores], result.found[other.picked]):
            failures.append(f"the result does not choose the best of '{one.tensor}' ({one.operator})")
    share = float(same.mean())
    if share < least:
        failures.append(f"{share:.0%} of the indices of {names} are the source's, at least {least:.0%}")
    note = (
        f"{names} chooses another index than in the source in {1 - share:.1%} of {same.size:,} cases, among nearly"
        " equal values: these agree, and so do the outputs with the source's choices"
    )
    proof = replace(
        proof,
        passed=not failures,
        message="; ".join(failures) or proof.message,
        choices={"indices": same.size, "equal": share},
    )
    return ChoiceVerdict(proof=proof, notes=(note,) if proof.passed else (), equal=same.mean(axis=1))


def _chooses_best(choice: Choice, scores: Array, picked: Array) -> bool:
    """Return whether the indices are those of the best scores [n, ...], in any order."""
    axis = choice.axis + 1 if choice.axis >= 0 else scores.ndim + choice.axis
    count = picked.size * scores.shape[axis] // scores.size
    shape = (*scores.shape[:axis], count, *scores.shape[axis + 1 :])
    signed = scores if choice.largest else -scores
    chosen = np.sort(np.take_along_axis(signed, picked.reshape(shape).astype(np.int64), axis), axis)
    best = np.take(np.sort(signed, axis), range(scores.shape[axis] - count, scores.shape[axis]), axis)
    return bool(np.abs(chosen - best).max(initial=0) <= _ROUNDING * np.ptp(scores))


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1)
