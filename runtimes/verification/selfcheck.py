"""Check that an artifact, run by this engine on this machine, reproduces its source's outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, SelfCheck, TensorSpec
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import REWRITE
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import InputError
from runtimes.joined_session import open_like_source
from runtimes.session import RunOptions, Session, TensorEngine, format_shape
from runtimes.tensors import dequantize
from runtimes.verification.labels import judge_labels
from runtimes.verification.metrics import LABELS_EQUAL, METRICS, ROWS_MATCHED, comparable, compare, meets, probe
from runtimes.verification.rows import judge_rows, pad
from runtimes.verification.scored_rows import view_as_decoder
from runtimes.verification.slices import judge_slices, limits_of

_FIX_SIZE = "end the model before what decides the size, or let it keep a fixed number of rows, as TopK does"


@dataclass(frozen=True)
class Verdict:
    """Whether the outputs are right, the metrics (the worst of all outputs), and a summary in one line."""

    passed: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


def verify(artifact: Artifact, engine: TensorEngine, options: RunOptions) -> JsonObject:
    """Open the artifact and `check` it; returns JSON: {"passed", "metrics", "message"}."""
    session = open_like_source(engine, artifact, options)
    try:
        return asdict(check(artifact, session))
    finally:
        session.close()


def check(artifact: Artifact, session: Session) -> Verdict:
    """Run the stored inputs and compare with the stored outputs, by the manifest's metric and tolerance.

    Raises InputError if the artifact has no self-check, or one that does not fit its model.
    """
    rule = artifact.manifest.selfcheck
    if rule is None:
        raise InputError(f"{artifact.model} has no self-check", REWRITE)
    inputs, expected = artifact.selfcheck()
    check_samples(artifact, inputs, expected)
    return judge(rule, expected, answers(session, inputs), artifact.manifest.precision)


def answers(session: Session, inputs: Arrays) -> Arrays:
    """Run all samples; returns dequantized float32 outputs, stacked on a new first axis.

    `inputs` are model inputs, stacked the same way. An input whose name the model does not know is matched by position:
    engines name the same tensor differently.
    """
    rows = [session.run(feeds) for feeds in sample_feeds(session, inputs)]
    return {spec.name: _real(rows, spec) for spec in session.outputs}


def sample_feeds(session: Session, inputs: Arrays) -> list[Arrays]:
    """Return the feeds of each sample; inputs are matched as in `answers`."""
    if len(inputs) != len(session.inputs):
        raise InputError(f"the self-check holds {len(inputs)} inputs, the model takes {len(session.inputs)}", REWRITE)
    named = {spec.name: inputs[_match(spec.name, place, inputs)] for place, spec in enumerate(session.inputs)}
    count = len(next(iter(named.values()))) if named else 1  # a model without inputs has one answer
    # asarray: indexing a stack of scalars gives numpy scalars, which engines do not take.
    return [{name: np.asarray(values[i]) for name, values in named.items()} for i in range(count)]


def judge(rule: SelfCheck, expected: Arrays, outputs: Arrays, precision: str = "") -> Verdict:
    """Compare every output with the expected one, and look into each as the rule says.

    Raises InputError for an output of another shape.
    """
    worst: dict[str, float] = {}
    sources = {name: expected[_match(name, place, expected)] for place, name in enumerate(outputs)}
    looks = _rename_checks(rule, outputs)
    read_sources, read_outputs = view_as_decoder(tuple(looks.values()), sources, outputs)
    for names, report in judge_rows(precision, _row_checks(looks), sources, outputs).items():
        if report.failures:
            return Verdict(passed=False, message=f"{quote(names)}: {report.failures[0]}")
        worst = merge_worst(worst, {ROWS_MATCHED: report.share})
    for name, values in outputs.items():
        source = sources[name]
        look = looks.get(name)
        if look is not None and look.kind == "rows":
            continue
        if source.shape != values.shape:
            wanted = f"the self-check holds output '{name}' as {list(source.shape[1:])}"
            raise InputError(f"{wanted}, the model answers {list(values.shape[1:])}", REWRITE)
        if look is not None and look.kind == "labels":
            labels = judge_labels(precision, source, values)
            if labels.failures:
                return Verdict(passed=False, message=f"output '{name}', {labels.failures[0]}")
            worst = merge_worst(worst, {LABELS_EQUAL: labels.share})
            continue
        source, values = comparable(source, values)
        broken = probe(source, values)
        if broken:
            return Verdict(passed=False, message=f"output '{name}' {broken}")
        if look is not None and look.scores is not None:
            source, values = read_sources[name], read_outputs[name]
        slices = judge_slices(look, source, values, limits_of(precision)) if look is not None else None
        if slices is not None and slices.failed:
            return Verdict(passed=False, message=slices.describe()[0])
        worst = merge_worst(worst, compare(source, values))
    if rule.metric not in worst and worst.keys() & {LABELS_EQUAL, ROWS_MATCHED}:
        shares = {LABELS_EQUAL: "labels are equal", ROWS_MATCHED: "rows match"}
        return Verdict(
            True, worst, ", ".join(f"{worst[key]:.2%} of the {shares[key]}" for key in shares if key in worst)
        )
    passed = meets(rule.metric, worst.get(rule.metric, 0.0), rule.tolerance)
    return Verdict(passed, worst, describe(rule.metric, worst[rule.metric], rule.tolerance))


def quote(names: Sequence[str]) -> str:
    """Format the names of outputs: `outputs 'boxes', 'scores'`."""
    return f"output{'s' if len(names) > 1 else ''} " + ", ".join(f"'{name}'" for name in names)


def _rename_checks(rule: SelfCheck, outputs: Arrays) -> dict[str, OutputCheck]:
    """Return the checks by the names that this engine gives the outputs."""
    names = {check.name: name for name, check in zip(outputs, rule.outputs)}
    looks = {}
    for check in rule.outputs[: len(names)]:
        scores = check.scores
        if scores is not None and scores.output not in names:
            raise InputError(f"the self-check reads scores in '{scores.output}', which is not an output", REWRITE)
        renamed = None if scores is None else replace(scores, output=names[scores.output])
        looks[names[check.name]] = replace(check, name=names[check.name], scores=renamed)
    return looks


def _row_checks(looks: Mapping[str, OutputCheck]) -> list[OutputCheck]:
    """Return the checks of outputs that are sets of rows."""
    found = [check for check in looks.values() if check.kind == "rows"]
    for check in found:
        if not check.parts:
            raise InputError(f"the self-check does not say which axis of output '{check.name}' holds rows", REWRITE)
    return found


def merge_worst(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the worse of two sets of metrics, metric by metric."""
    return {
        name: value if name not in first or meets(name, first[name], value) else first[name]
        for name, value in second.items()
    }


def describe(metric: str, value: float, limit: float) -> str:
    """Format a metric and its limit: `max_abs 3.2e-06, at most 0.0001`."""
    bound = "at least" if METRICS[metric] else "at most"
    return f"{metric} {value:.4g}, {bound} {limit:.4g}"


def _real(rows: list[Mapping[str, Array]], spec: TensorSpec) -> Array:
    real = [dequantize(row[spec.name], spec.quantization) for row in rows]
    shapes = list(dict.fromkeys(values.shape for values in real))
    if len(shapes) == 1:
        return np.stack(real)
    first, second = shapes[:2]
    if len({len(shape) for shape in shapes}) == 1:
        axes = [axis for axis, sizes in enumerate(zip(*shapes)) if len(set(sizes)) > 1]
        if len(axes) == 1:
            return pad(real, axes[0])
    what = f"output '{spec.name}' has another size for each input ({format_shape(first)}, then {format_shape(second)})"
    raise InputError(
        f"{what} on more than one axis, so its rows cannot be compared", _FIX_SIZE, {"uneven_output": spec.name}
    )


def _match(name: str, place: int, arrays: Arrays) -> str:
    if name in arrays:
        return name
    names = list(arrays)
    if place >= len(names):
        raise InputError(f"the self-check has no values for '{name}'", REWRITE)
    return names[place]


def check_samples(artifact: Artifact, inputs: Arrays, outputs: Arrays) -> None:
    """Raise InputError unless the stored inputs and outputs pair up."""
    counts = {len(array) if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if not outputs or len(counts) != 1 or counts == {0}:
        raise InputError(f"{artifact.path}: the self-check's inputs and outputs do not pair up", REWRITE)
