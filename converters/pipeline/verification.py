"""Verify a result against its source: both run on the same inputs, and the difference is limited.

The limits were chosen on MobileNetV2 with 20 held-out pictures (probabilities; signal-to-noise, cosine, same top-1):

    fp32 in another engine                115 dB  1.000  20 of 20    fp32 needs  60 dB, and 1e-4 of any value
    weights rounded to fp16                39 dB  1.000  20 of 20    fp16 needs  20 dB, and 0.1 of any value
    Google's own int8 file                 28 dB  0.999  19 of 20    int8 needs  12 dB, 0.97 and 80 %
    another training of the same network   11 dB  0.967  17 of 20
    input scaled to 0…1 instead of −1…1    10 dB  0.957  17 of 20
    color channels swapped                 4 dB  0.766  13 of 20
    one scale used for all channels       ≤ 3 dB         ≤ 11 of 20
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from converters.base import CrossCheckResult
from converters.calibration.dataset import Calibration, to_model_dtypes
from converters.pipeline.tensor_matching import pair_tensors, reshape_answers
from converters.proof.divergence import Divergence
from runtimes.arrays import Array, Arrays
from runtimes.artifact import SelfCheck, TensorSpec
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import ProofError
from runtimes.session import Session, format_shape
from runtimes.verification.labels import LabelReport, judge_labels
from runtimes.verification.metrics import (
    LABELS_EQUAL,
    ROWS_MATCHED,
    comparable,
    compare,
    is_constant,
    meets,
    probe,
    sums_to_one,
)
from runtimes.verification.rows import RowReport, judge_rows, padded_axis
from runtimes.verification.scored_rows import find_counted_samples, view_as_decoder
from runtimes.verification.selfcheck import answers, describe, merge_worst, quote
from runtimes.verification.slices import SliceReport, complete_check, judge_slices, limits_of

SELFCHECK_SAMPLES = 4
SYNTHETIC = "synthetic"
GIVE_REAL_INPUTS = "the inputs are synthetic: pass real ones with --calibration"
_MAX_SLICES_STORED = 100
_MAX_SEQUENCE_BYTES = 4_000_000
_FEWEST_FOR_TOP1 = 10  # with fewer, one ambiguous picture decides
_TWICE_DB = 3.0  # twice the power
_TIES_TOLD = 0.25  # report ties above this share of the samples

_FP32 = {"max_abs": 1e-4, "snr_db": 60.0}
_FP16 = {"max_abs": 0.1, "snr_db": 20.0}
_QUANTIZED = {"snr_db": 12.0, "cosine": 0.97, "top1_agreement": 0.8}
# Precision → limits; precisions that are not listed are quantized. The first metric also decides on the device.
LIMITS: Mapping[str, Mapping[str, float]] = {"fp32": _FP32, "fp16": _FP16}

_REMEDIES = {
    "fp32": "try another opset or format: the model is intact, but this conversion does not support it exactly",
    "fp16": "some values may not fit in fp16: try --precision fp32",
}
_REMEDY = (
    "calibrate with more inputs of the real task (100 or more), or try --precision fp16 or fp32 (TFLite and ONNX: w8)"
)
_REMEDY_FOR_SLICES = (
    "put values of another scale into a separate output, or scale them to the same range; or try --precision fp16"
    " or fp32"
)
_REMEDY_OWN_SCALES = (
    "the source is quantized, so the result has its scales, and no other precision can be reached from it: start from"
    " the float model that it was quantized from"
)
_REMEDY_UNSTEADY = "the engine computes this model unreliably: try another format or precision, or update the engine"


def is_quantized(precision: str) -> bool:
    """Return whether results of this precision are compared by the limits of quantized ones."""
    return precision not in LIMITS


@dataclass(frozen=True)
class Samples:
    """Inputs of the source, and their kind: "pictures", "arrays" or "synthetic"."""

    inputs: Calibration
    kind: str

    @property
    def are_made_up(self) -> bool:
        """Whether the inputs are synthetic, so that a failure may be theirs."""
        return self.kind == SYNTHETIC


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The verdict; `metrics` are the worst of all outputs, `limits` their limits.

    slices: What was found inside the outputs.
    labels: The verdict on each output of labels, by name.
    rows: The verdict on outputs whose size depends on the input, by the names of those that belong together.
    unsteady: Whether the result answers the same input differently each time.
    choices: How many indices ArgMax and TopK choose, and which share of them as the source does, if some differ.
    """

    passed: bool
    metrics: Mapping[str, float]
    limits: Mapping[str, float]
    message: str
    slices: SliceReport = field(default_factory=SliceReport)
    labels: Mapping[str, LabelReport] = field(default_factory=dict)
    rows: Mapping[tuple[str, ...], RowReport] = field(default_factory=dict)
    unsteady: bool = False
    choices: JsonObject = field(default_factory=dict)

    def error(
        self,
        precision: str,
        kept: str,
        *,
        are_made_up: bool = False,
        own_scales: bool = False,
        divergence: Divergence | None = None,
    ) -> ProofError:
        """Return an error that says what to try, where the result is kept, and whether the inputs were synthetic.

        own_scales: Whether the source is quantized, so that only its own scales can be kept.
        divergence: The first tensor that differs, if it was found.
        """
        remedy = _REMEDIES.get(precision, _REMEDY_FOR_SLICES if self.slices.failed else _REMEDY)
        if self.unsteady:
            remedy = _REMEDY_UNSTEADY
        elif own_scales:
            remedy = _REMEDY_OWN_SCALES
        if are_made_up and not self.unsteady:
            remedy = f"{GIVE_REAL_INPUTS}; if they differ too: {remedy}"
        worst = self.slices.worst
        details: JsonObject = {"inputs": "made up" if are_made_up else "given"}
        if worst is not None:
            details["worst_slice"] = worst.as_dict()
        message = self.message
        if divergence is not None:
            details["first_divergence"] = divergence.as_dict()
            message = f"{message}; {divergence}"
        return ProofError(message, f"{remedy}; the result is kept in {kept}", details)

    def inside(self) -> JsonObject:
        """Return what was found inside the outputs, for the manifest and `--json`."""
        worst = self.slices.worst
        found: JsonObject = {
            "slices": {
                "checked": self.slices.checked,
                "failed": [one.as_dict() for one in self.slices.failed[:_MAX_SLICES_STORED]],
                "worst": worst.where if worst else None,
                "faint": list(self.slices.faint),
            }
        }
        if self.labels:
            found["labels"] = {name: one.as_dict() for name, one in self.labels.items()}
        if self.choices:
            found["choices"] = self.choices
        if self.rows:
            found["rows"] = {name: one.as_dict() for names, one in self.rows.items() for name in names}
        return found


def source_answers(session: Session, samples: Samples) -> Arrays:
    """Return the source's dequantized outputs [n, *shape]. Raises ProofError if they do not depend on the input."""
    outputs = answers(session, to_model_dtypes(session.inputs, samples.inputs.samples))
    which = "for synthetic inputs" if samples.are_made_up else "for the given inputs"
    hint = GIVE_REAL_INPUTS if samples.are_made_up else "check the model and its inputs"
    for spec in session.outputs:
        name, values = spec.name, outputs[spec.name]
        is_padded = padded_axis(values, spec.shape) is not None
        is_finite = np.isfinite(values) | (np.isnan(values) & is_padded)
        # Real inputs may lead to minus infinity, or to NaN in places: the result has to hold the same there.
        if not (is_finite.all() if samples.are_made_up else values.size == 0 or not np.isnan(values).all()):
            raise ProofError(f"the source's own output '{name}' is not finite {which}", hint)
    if all(is_constant(values) for values in outputs.values()):
        raise ProofError(
            f"the source computes the same output {which}, so nothing can be proven with them",
            f"{hint}; if that does not help, check its weights (untrained BatchNorm?)",
        )
    return outputs


def map_tensors(
    source: Sequence[TensorSpec], other: Sequence[TensorSpec], arrays: Arrays, kind: str = "input"
) -> Arrays:
    """Convert arrays from the source's tensor names and axes to the other model's; `kind` is input or output."""
    pairs = pair_tensors(source, other, kind)
    return {pair.other.name: pair.to_other(arrays[pair.source.name]) for pair in pairs}


def verify(precision: str, truth: Arrays, given: Arrays, checks: Sequence[OutputCheck] = ()) -> Verification:
    """Compare the artifact's outputs with the source's: both dequantized, [n, *shape], with the same names.

    `checks` describe the parts of each output; an output without a check is only compared as a whole.
    """
    metrics: dict[str, float] = {}
    limits: dict[str, float] = {}
    failures: list[str] = []
    slices = SliceReport()
    labels: dict[str, LabelReport] = {}
    looks = {check.name: check for check in checks}
    row_checks = [check for check in checks if check.kind == "rows"]
    rows = judge_rows(precision, row_checks, truth, given)
    for names, report in rows.items():
        failures += [f"{quote(names)}: {line}" for line in report.failures]
        metrics = merge_worst(metrics, {ROWS_MATCHED: report.share})
        limits = merge_worst(limits, {ROWS_MATCHED: report.limit})
    read_truth, read_given = view_as_decoder(checks, _align(truth, given), given)
    for name, values in given.items():
        look = looks.get(name)
        if look is not None and look.kind == "rows":
            continue
        if truth[name].size != values.size or (not values.size and truth[name].shape != values.shape):
            shapes = f"{format_shape(values.shape[1:])}, the source's {format_shape(truth[name].shape[1:])}"
            failures.append(f"output '{name}' has the shape {shapes}")
            continue
        expected = truth[name].reshape(values.shape)
        if look is not None and look.kind == "labels":
            labels[name] = judge_labels(precision, expected, values)
            failures += [f"output '{name}', {line}" for line in labels[name].failures]
            metrics = merge_worst(metrics, {LABELS_EQUAL: labels[name].share})
            limits = merge_worst(limits, {LABELS_EQUAL: labels[name].limit})
            continue
        expected, values = comparable(expected, values)
        broken = probe(expected, values)
        if broken:
            failures.append(f"output '{name}' {broken}")
            continue
        found, wanted = compare(expected, values), _limits(precision, expected)
        if look is not None and look.scores is not None:
            expected, values = read_truth[name], read_given[name]
            found = {**compare(expected, values), "cosine": found["cosine"]}  # the cosine is that of all rows
        if look is not None:
            slices += judge_slices(look, expected, values, limits_of(precision))
        failures += _below(name, found, wanted)
        metrics = merge_worst(metrics, found)
        limits = merge_worst(limits, wanted)
    failures += slices.describe()
    message = "; ".join(failures) or "; ".join(describe(name, metrics[name], limits[name]) for name in limits)
    return Verification(
        passed=not failures, metrics=metrics, limits=limits, message=message, slices=slices, labels=labels, rows=rows
    )


def _align(truth: Arrays, given: Arrays) -> Arrays:
    """Return the source's outputs in the shapes of the result's, as far as they have as many values."""
    return {name: reshape_answers(truth[name], values) for name, values in given.items()}


def complete_checks(
    checks: Sequence[OutputCheck], truth: Arrays, given: Arrays, outputs: Sequence[TensorSpec]
) -> tuple[OutputCheck, ...]:
    """Complete the checks with the ranges and quantization steps, which depend on the values."""
    scales = {
        spec.name: spec.quantization.scales[0]
        for spec in outputs
        if spec.quantization is not None and len(spec.quantization.scales) == 1
    }
    truth, given = view_as_decoder(checks, _align(truth, given), given)
    found = []
    for check in checks:
        expected, values = comparable(truth[check.name], given[check.name])
        is_comparable = expected.shape == values.shape and values.size and np.isfinite(values).all()
        if check.kind == "values" and is_comparable and np.isfinite(expected).all():
            are_shares = check.scores is not None and check.scores.output == check.name
            check = complete_check(check, expected, values, 0.0 if are_shares else scales.get(check.name, 0.0))
        found.append(check)
    return tuple(found)


def find_ties(truth: Arrays, given: Arrays) -> tuple[str, ...]:
    """Return a note for each classifier output whose top classes tie much more often than the source's."""
    lines = []
    for name, values in given.items():
        rows, expected = values.reshape(len(values), -1), truth[name].reshape(len(values), -1)
        share = _tied(rows)
        if sums_to_one(expected) and share > _tied(expected) + _TIES_TOLD:
            lines.append(
                f"output '{name}' has a tie for the best answer in {share:.0%} of the samples, unlike its source"
            )
    return tuple(lines)


def _tied(rows: Array) -> float:
    return float(((rows == rows.max(axis=1, keepdims=True, initial=-np.inf)).sum(axis=1) > 1).mean())


def selfcheck_rule(
    precision: str, truth: Arrays, kind: str, checks: Sequence[OutputCheck] = (), *, stateful: bool = False
) -> SelfCheck:
    """Return the self-check that a device uses: the first of the precision's limits, and the checks of the outputs."""
    kinds = {check.name: check.kind for check in checks}
    wanted = [_limits(precision, values) for name, values in truth.items() if kinds.get(name, "values") == "values"]
    if not wanted and "labels" not in kinds.values():
        least = min(one.limit for one in judge_rows(precision, checks, truth, truth).values())
        return SelfCheck(metric=ROWS_MATCHED, tolerance=least, inputs=kind, outputs=tuple(checks), stateful=stateful)
    if not wanted:
        labeled = [values for name, values in truth.items() if kinds[name] == "labels"]
        shares = [judge_labels(precision, values, values).limit for values in labeled]
        return SelfCheck(
            metric=LABELS_EQUAL, tolerance=min(shares), inputs=kind, outputs=tuple(checks), stateful=stateful
        )
    metric = next(iter(wanted[0]))
    loosest = wanted[0][metric]
    for limits in wanted[1:]:
        loosest = merge_worst({metric: loosest}, {metric: limits[metric]})[metric]
    return SelfCheck(metric=metric, tolerance=loosest, inputs=kind, outputs=tuple(checks), stateful=stateful)


def loosen(rule: SelfCheck, truth: Arrays, given: Arrays, rows: Array) -> SelfCheck:
    """Return the self-check for a result that chooses other indices than its source in the samples `rows`.

    On a device they may be others again: there the outputs may differ by twice as much as here.
    """
    worst = {rule.metric: rule.tolerance}
    for name in (check.name for check in rule.outputs if check.kind == "values"):
        found = compare(truth[name][rows], given[name][rows])[rule.metric]
        twice = found - _TWICE_DB if rule.metric == "snr_db" else 2 * found
        worst = merge_worst(worst, {rule.metric: twice})
    return replace(rule, tolerance=float(f"{worst[rule.metric]:.4g}"))


def checks_for_device(
    proof: Verification, precision: str, checks: Sequence[OutputCheck], truth: Arrays, given: Arrays, rows: Array
) -> tuple[OutputCheck, ...]:
    """Return the checks for a device, in the order of the result's outputs.

    A device only has the samples `rows`; parts that need more samples are not checked there.
    """
    failing = {one.output for one in proof.slices.failed}
    truth, given = view_as_decoder(checks, truth, given)
    kept = []
    for check in sorted(checks, key=lambda one: list(given).index(one.name)):
        if check.kind != "values" or truth[check.name].shape != given[check.name].shape:
            kept.append(check)
            continue
        expected, values = comparable(truth[check.name][rows], given[check.name][rows])
        passes = not judge_slices(check, expected, values, limits_of(precision)).failed
        kept.append(check if passes or check.name in failing else replace(check, parts=()))
    return tuple(kept)


def sequence_length(truth: Arrays) -> int:
    """Return how many first samples show how a state acts: until each output has moved by half of its range."""
    lengths = [SELFCHECK_SAMPLES]
    for values in truth.values():
        rows = values.reshape(len(values), -1)
        moves = np.abs(rows - rows[0]).max(axis=1, initial=0)
        lengths.append(int(np.argmax(moves >= moves.max() / 2)) + 1)
    return max(lengths)


def selfcheck_rows(
    truth: Arrays,
    given: Arrays,
    checks: Sequence[OutputCheck] = (),
    *,
    count: int = SELFCHECK_SAMPLES,
    in_order: bool = False,
    preferred: Array | None = None,
) -> Array:
    """Return the samples for the self-check: the `count` whose outputs are closest to the source's.

    The self-check verifies that another machine computes the same; samples near the tolerance could fail there just by
    rounding. Where a decoder reads rows by their scores, samples in which it reads some come first.

    in_order: Take the first samples, for a model that keeps a state from one to the next.
    preferred: Larger for samples that are taken before others, [n].
    """
    samples = len(next(iter(given.values())))
    name = next((name for name, values in given.items() if truth[name].size == values.size), None)
    if in_order or name is None or not np.isfinite(truth[name]).all():
        return np.arange(min(count, samples))
    expected, values = truth[name].reshape(given[name].shape), given[name]
    closeness = [compare(expected[i : i + 1], values[i : i + 1])["cosine"] for i in range(samples)]
    first = np.zeros(samples) if preferred is None else -preferred
    order = np.lexsort((-np.round(closeness, 6), first, ~find_counted_samples(checks, truth)))
    return np.sort(order[:count])


def selfcheck_count(feeds: Arrays, limit: int | None, wanted: int = SELFCHECK_SAMPLES) -> int:
    """Return how many samples the self-check holds if its inputs may take `limit` bytes: `wanted`, and at least 2.

    Without a limit, those beyond the first 4 may take 4 MB.
    """
    size = sum(int(values[0].nbytes) for values in feeds.values())
    fewest, limit = (SELFCHECK_SAMPLES, _MAX_SEQUENCE_BYTES) if limit is None else (2, limit)
    return max(fewest, min(wanted, limit // max(1, size)))


def _limits(precision: str, expected: Array) -> dict[str, float]:
    """Return the limits for an output: absolute ones scale with its largest value; top-1 only for classifiers."""
    limits = dict(LIMITS.get(precision, _QUANTIZED))
    if "max_abs" in limits:
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        limits["max_abs"] *= max(1.0, float(f"{largest:.3g}"))
    if not sums_to_one(expected) or len(expected) < _FEWEST_FOR_TOP1:
        limits.pop("top1_agreement", None)
    return limits


def _below(name: str, measured: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    missed = [metric for metric, limit in limits.items() if not meets(metric, measured[metric], limit)]
    words = ", ".join(describe(metric, measured[metric], limits[metric]) for metric in missed)
    return [f"output '{name}' is too far from the source's: {words}"] if missed else []


def combine_verdicts(
    proof: Verification,
    second_engine: CrossCheckResult,
    precision: str,
    truth: Arrays,
    checks: Sequence[OutputCheck] = (),
) -> Verification:
    """Combine the verdicts of both engines: passed if both pass, with the worse of each metric."""
    given = dict(zip(truth, second_engine.answers.values(), strict=True))
    second = verify(precision, truth, given, checks)
    metrics = merge_worst(proof.metrics, second.metrics) if second.metrics else proof.metrics
    failures = [] if proof.passed else [proof.message]
    if not second.passed:
        failures.append(f"on {second_engine.engine}, {second.message}")
    slices = proof.slices if proof.slices.failed else second.slices
    message = "; ".join(failures) or proof.message
    return replace(proof, passed=not failures, metrics=metrics, message=message, slices=slices)


def combine_sizes(proof: Verification, others: Mapping[str, Verification]) -> Verification:
    """Combine the verdict with those in other sizes, {sizes: verdict}: passed if all pass; the worse of each metric."""
    for sizes, other in others.items():
        metrics = merge_worst(proof.metrics, other.metrics) if other.metrics else proof.metrics
        failures = [
            *([] if proof.passed else [proof.message]),
            *([] if other.passed else [f"at {sizes}, {other.message}"]),
        ]
        message = "; ".join(failures) or proof.message
        proof = replace(proof, passed=not failures, metrics=metrics, message=message)
    return proof


def explain_by_rounding(proof: Verification, rest: Verification) -> Verification:
    """Return `proof` as passed, with its figures, if `rest` passes, from which differences by rounding are excluded."""
    if not rest.passed:
        return rest
    limits = merge_worst(proof.limits, proof.metrics)
    message = "; ".join(describe(name, proof.metrics[name], limits[name]) for name in proof.limits)
    return replace(rest, metrics=proof.metrics, limits={name: limits[name] for name in proof.limits}, message=message)


def with_soak(proof: Verification, difference: str) -> Verification:
    """Return a failed verdict if repeated inferences differ, as `difference` says: this explains other failures too."""
    return replace(proof, passed=False, message=difference, unsteady=True) if difference else proof


def combine(proof: Verification, second: Verification) -> Verification:
    """Combine both verdicts: passed if both pass, with the worse of each metric."""
    metrics = merge_worst(proof.metrics, second.metrics) if second.metrics else proof.metrics
    failures = [] if proof.passed else [proof.message]
    if not second.passed:
        failures.append(f"with every value rounded like on the device, {second.message}")
    return replace(
        proof,
        passed=not failures,
        metrics=metrics,
        message="; ".join(failures) or proof.message,
        slices=proof.slices if proof.slices.failed else second.slices,
    )
