"""Does this artifact, opened by this engine on this machine, answer as its source did?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Mapping

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, SelfCheck, TensorSpec
from runtimes.errors import InputError
from runtimes.metrics import METRICS, compare, meets, probe
from runtimes.session import RunOptions, Runtime, Session
from runtimes.tensors import dequantize

_REMAKE = "write the artifact again with `edge convert`"


@dataclass(frozen=True)
class Verdict:
    """Whether the answers are right, the metrics (the worst of all outputs), and the same in one line."""

    passed: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


def verify(artifact: Artifact, engine: Runtime, options: RunOptions) -> dict[str, Any]:
    """Open the artifact and `check` it; the verdict as JSON: {"passed", "metrics", "message"}."""
    session = engine.open(artifact, options)
    try:
        return asdict(check(artifact, session))
    finally:
        session.close()


def check(artifact: Artifact, session: Session) -> Verdict:
    """Run the stored inputs and hold the answers against the stored ones, by the manifest's metric and tolerance.

    InputError when the artifact carries no self-check, or one that does not fit its model.
    """
    rule = artifact.manifest.selfcheck
    if rule is None:
        raise InputError(f"{artifact.model} carries no self-check", _REMAKE)
    inputs, expected = artifact.selfcheck()
    _check_samples(artifact, inputs, expected)
    return judge(rule, expected, answers(session, inputs))


def answers(session: Session, inputs: Arrays) -> Arrays:
    """What the model says to each sample: real float32 numbers, stacked on a new first axis.

    `inputs` are as fed to the model, stacked the same way; one whose name the model does not know is taken by its
    place, as engines name the same tensor differently.
    """
    if len(inputs) != len(session.inputs):
        raise InputError(f"the self-check holds {len(inputs)} inputs, the model takes {len(session.inputs)}", _REMAKE)
    named = {spec.name: inputs[_match(spec.name, place, inputs)] for place, spec in enumerate(session.inputs)}
    count = len(next(iter(named.values())))
    rows = [session.run({name: values[i] for name, values in named.items()}) for i in range(count)]
    return {spec.name: _real(rows, spec) for spec in session.outputs}


def judge(rule: SelfCheck, expected: Arrays, given: Arrays) -> Verdict:
    """Hold every output against the expected one; an output that does not fit is an InputError."""
    worst: dict[str, float] = {}
    for place, (name, values) in enumerate(given.items()):
        source = expected[_match(name, place, expected)]
        if source.shape != values.shape:
            wanted = f"the self-check holds output '{name}' as {list(source.shape[1:])}"
            raise InputError(f"{wanted}, the model answers {list(values.shape[1:])}", _REMAKE)
        broken = probe(source, values)
        if broken:
            return Verdict(False, {}, f"output '{name}' {broken}")
        worst = merge_worst(worst, compare(source, values))
    passed = meets(rule.metric, worst.get(rule.metric, 0.0), rule.tolerance)
    return Verdict(passed, worst, describe(rule.metric, worst[rule.metric], rule.tolerance))


def merge_worst(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The worse of two sets of metrics, metric by metric."""
    return {
        name: value if name not in first or meets(name, first[name], value) else first[name]
        for name, value in second.items()
    }


def describe(metric: str, value: float, limit: float) -> str:
    """One metric beside its limit: `max_abs 3.2e-06, at most 0.0001`."""
    bound = "at least" if METRICS[metric] else "at most"
    return f"{metric} {value:.4g}, {bound} {limit:.4g}"


def _real(rows: list[Mapping[str, Array]], spec: TensorSpec) -> Array:
    return np.stack([dequantize(row[spec.name], spec.quantization) for row in rows])


def _match(name: str, place: int, arrays: Arrays) -> str:
    if name in arrays:
        return name
    names = list(arrays)
    if place >= len(names):
        raise InputError(f"the self-check holds nothing for '{name}'", _REMAKE)
    return names[place]


def _check_samples(artifact: Artifact, inputs: Arrays, outputs: Arrays) -> None:
    counts = {len(array) if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if not inputs or not outputs or len(counts) != 1 or counts == {0}:
        raise InputError(f"{artifact.path}: the self-check's inputs and outputs do not pair up", _REMAKE)
