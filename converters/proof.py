"""The proof that a result equals its source: both run on the same inputs, and the difference has a limit.

The limits were chosen on MobileNetV2 with 20 held-out pictures (probabilities; signal-to-noise, cosine, same top-1):

    fp32 in another engine                115 dB  1.000  20 of 20    fp32 wants  60 dB, and 1e-4 of any value
    weights rounded to fp16                39 dB  1.000  20 of 20    fp16 wants  20 dB, and 0.1 of any value
    Google's own int8 file                 28 dB  0.999  19 of 20    int8 wants  12 dB, 0.97 and 80 %
    another training of the same network   11 dB  0.967  17 of 20
    input scaled to 0…1 instead of −1…1    10 dB  0.957  17 of 20
    colour channels swapped                 4 dB  0.766  13 of 20
    one scale used for all channels       ≤ 3 dB         ≤ 11 of 20
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.calibration import Calibration
from converters.matching import pair_tensors
from runtimes.arrays import Array, Arrays
from runtimes.artifact import SelfCheck, TensorSpec
from runtimes.errors import ProofError
from runtimes.metrics import compare, is_constant, meets, probe, sums_to_one
from runtimes.selfcheck import answers, describe, merge_worst
from runtimes.session import Session
from runtimes.tensors import quantize

SELFCHECK_SAMPLES = 4
_FEWEST_FOR_TOP1 = 10  # below, one doubtful picture decides
_TIES_TOLD = 0.25  # of the samples

_FP32 = {"max_abs": 1e-4, "snr_db": 60.0}
_FP16 = {"max_abs": 0.1, "snr_db": 20.0}
_QUANTISED = {"snr_db": 12.0, "cosine": 0.97, "top1_agreement": 0.8}
# Precision → its limits; whatever is not listed is quantised. The first metric decides on the device too.
LIMITS: Mapping[str, Mapping[str, float]] = {"fp32": _FP32, "fp16": _FP16}

_REMEDIES = {
    "fp32": "try another opset or format; if it persists, the converter changes this model: please report it",
    "fp16": "some values may not fit in fp16: try --precision fp32",
}
_REMEDY = "calibrate with more pictures of the real task (100 or more), or try --precision fp16 or fp32"


@dataclass(frozen=True)
class Samples:
    """Real inputs of the source, and what they are: "pictures", "arrays" or "synthetic"."""

    inputs: Calibration
    kind: str


@dataclass(frozen=True)
class Proof:
    """The verdict; `metrics` are the worst of all outputs, `limits` what was asked of them."""

    passed: bool
    metrics: Mapping[str, float]
    limits: Mapping[str, float]
    message: str

    def error(self, precision: str, kept: str) -> ProofError:
        """The failed verdict as an error that says what to try and where the result is kept."""
        remedy = _REMEDIES.get(precision, _REMEDY)
        return ProofError(self.message, f"{remedy}; the result is kept in {kept}")


def source_answers(session: Session, samples: Calibration) -> Arrays:
    """The source's outputs, real numbers [n, *shape]; ProofError when they do not depend on the input."""
    outputs = answers(session, fed(session.inputs, samples.samples))
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise ProofError(f"the source's own output '{name}' is not finite", "check the model and its inputs")
    if all(is_constant(values) for values in outputs.values()):
        raise ProofError(
            "the source answers every input with the same, so nothing can be proven with it",
            "check its weights (untrained BatchNorm?), or give real inputs with --calibration",
        )
    return outputs


def fed(inputs: Sequence[TensorSpec], real: Arrays) -> Arrays:
    """Real samples [n, *shape] in the dtypes that the model takes."""
    return {spec.name: _quantized(real[spec.name], spec) for spec in inputs}


def translated(
    source: Sequence[TensorSpec], other: Sequence[TensorSpec], arrays: Arrays, kind: str = "input"
) -> Arrays:
    """Arrays by the source's tensor names under the other model's names and in its axes; `kind` is input or output."""
    pairs = pair_tensors(source, other, kind)
    return {pair.other.name: pair.to_other(arrays[pair.source.name]) for pair in pairs}


def prove(precision: str, truth: Arrays, given: Arrays) -> Proof:
    """Hold the artifact's outputs against the source's: both real, [n, *shape], under the same names."""
    metrics: dict[str, float] = {}
    limits: dict[str, float] = {}
    failures: list[str] = []
    for name, values in given.items():
        expected = truth[name].reshape(values.shape)
        broken = probe(expected, values)
        if broken:
            failures.append(f"output '{name}' {broken}")
            continue
        measured, wanted = compare(expected, values), _limits(precision, expected)
        failures += _below(name, measured, wanted)
        metrics = merge_worst(metrics, measured)
        limits = merge_worst(limits, wanted)
    message = "; ".join(failures) or "; ".join(describe(name, metrics[name], limits[name]) for name in limits)
    return Proof(not failures, metrics, limits, message)


def ties(truth: Arrays, given: Arrays) -> tuple[str, ...]:
    """A line to read for each classifier's output whose best answers tie often, as they do not in the source."""
    lines = []
    for name, values in given.items():
        rows, expected = values.reshape(len(values), -1), truth[name].reshape(len(values), -1)
        share = _tied(rows)
        if sums_to_one(expected) and share > _tied(expected) + _TIES_TOLD:
            lines.append(f"output '{name}' has two best answers or more in {share:.0%} of the samples, its source one")
    return tuple(lines)


def _tied(rows: Array) -> float:
    return float(((rows == rows.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean())


def selfcheck_rule(precision: str, truth: Arrays, kind: str) -> SelfCheck:
    """What a device holds the artifact against: the first of the precision's limits."""
    wanted = [_limits(precision, values) for values in truth.values()]
    metric = next(iter(wanted[0]))
    loosest = wanted[0][metric]
    for limits in wanted[1:]:
        loosest = merge_worst({metric: loosest}, {metric: limits[metric]})[metric]
    return SelfCheck(metric, loosest, kind)


def selfcheck_rows(truth: Arrays, given: Arrays) -> Array:
    """Which samples a self-check stores: those that the artifact answers most as its source does.

    A self-check asks whether another machine computes as this one does; samples at the edge of the tolerance would
    fail there by rounding alone.
    """
    name = next(iter(given))
    expected, values = truth[name].reshape(given[name].shape), given[name]
    closeness = [compare(expected[i : i + 1], values[i : i + 1])["cosine"] for i in range(len(values))]
    return np.sort(np.argsort(-np.round(closeness, 6), kind="stable")[:SELFCHECK_SAMPLES])


def _limits(precision: str, expected: Array) -> dict[str, float]:
    """The limits for one output: absolute ones grow with its largest value, top-1 only where it is a classifier's."""
    limits = dict(LIMITS.get(precision, _QUANTISED))
    if "max_abs" in limits:
        limits["max_abs"] *= max(1.0, float(f"{np.abs(expected).max():.3g}"))
    if not sums_to_one(expected) or len(expected) < _FEWEST_FOR_TOP1:
        limits.pop("top1_agreement", None)
    return limits


def _below(name: str, measured: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    missed = [metric for metric, limit in limits.items() if not meets(metric, measured[metric], limit)]
    words = ", ".join(describe(metric, measured[metric], limits[metric]) for metric in missed)
    return [f"output '{name}' is too far from the source's: {words}"] if missed else []


def _quantized(real: Array, spec: TensorSpec) -> Array:
    return np.stack([quantize(sample, spec) for sample in real])
