"""Decide how each output of a result is compared with the source's: as values or labels, and in which parts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converters.pipeline.tensor_matching import TensorPair
from converters.proof.onnx_origins import sizes_by_value
from converters.proof.origins import Tracer, whole_output
from runtimes.arrays import Arrays
from runtimes.artifact import TensorSpec
from runtimes.artifact.self_check import OutputCheck, Part, RowScores
from runtimes.errors import InputError
from runtimes.model_files.detect import layout_of
from runtimes.session import concrete_shape
from runtimes.verification.rows import padded_axis, row_check
from runtimes.verification.scored_rows import FEWEST_ROWS, find_counted_rows
from runtimes.verification.selfcheck import quote

_log = logging.getLogger(__name__)


def output_checks(graphs: Sequence[tuple[Path, str]], pairs: Sequence[TensorPair]) -> tuple[OutputCheck, ...]:
    """Return a check for each output.

    graphs: The models that compute these outputs and their formats, the source first. The first that can be read and
        tells something decides; a result that lacks what it should have is found by its values.
    pairs: The outputs of the source and of the result, in the order of all graphs.
    """
    tracers = [tracer for path, model_format in graphs if (tracer := _tracer(path, model_format)) is not None]
    return tuple(_check(place, pair, tracers) for place, pair in enumerate(pairs))


def row_checks(
    checks: Sequence[OutputCheck],
    pairs: Sequence[TensorPair],
    inputs: Sequence[TensorSpec],
    graphs: Sequence[tuple[Path, str]],
    truth: Arrays,
    given: Arrays,
) -> tuple[OutputCheck, ...]:
    """Return the checks with a comparison as sets of rows for outputs whose size depends on the input's values.

    truth, given: The answers of the source and of the result [n, ...], by the result's names.
    """
    known = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
    axes = {pair.other.name: _row_axis(pair, known, graphs, truth, given) for pair in pairs if pair.axes is None}
    exact = {pair.other.name: _holds_whole_numbers(pair.source) for pair in pairs}
    return tuple(
        check if axis is None else row_check(check.name, axis, truth[check.name], exact=exact[check.name])
        for check in checks
        for axis in [axes.get(check.name)]
    )


def with_row_scores(
    checks: Sequence[OutputCheck], pairs: Sequence[TensorPair], scores: RowScores | None, truth: Arrays
) -> tuple[OutputCheck, ...]:
    """Return the checks with the scores by which a decoder reads rows, as far as enough rows count in the source.

    scores: The scores, by the source's name of their output.
    truth: The source's answers [n, ...], by the result's names.
    """
    name = next((pair.other.name for pair in pairs if scores is not None and pair.source.name == scores.output), None)
    if scores is None or name is None or any(check.kind != "values" for check in checks):
        return tuple(checks)
    scores = replace(scores, output=name)
    rows = find_counted_rows(scores, truth)
    if rows.sum() < FEWEST_ROWS:
        return tuple(checks)
    return tuple(
        replace(check, scores=scores) if truth[check.name].shape[:-1] == rows.shape else check for check in checks
    )


def describe_row_scores(checks: Sequence[OutputCheck], truth: Arrays) -> tuple[str, ...]:
    """Return a note about what a decoder reads by its scores, and so is compared; nothing if it reads all."""
    scores = next((check.scores for check in checks if check.scores is not None), None)
    if scores is None:
        return ()
    rows = find_counted_rows(scores, truth)
    names = [check.name for check in checks if check.scores is not None and check.name != scores.output]
    what = f"{quote(names)} is compared in the rows" if len(names) == 1 else f"{quote(names)} are compared in the rows"
    where = f"whose score is at least {scores.least:g} in the source, {int(rows.sum()):,} of {rows.size:,}"
    return (f"{what} {where}; '{scores.output}' is compared as probabilities",)


def _row_axis(
    pair: TensorPair, known: set[str], graphs: Sequence[tuple[Path, str]], truth: Arrays, given: Arrays
) -> int | None:
    """Return the axis of rows: the one that is padded, that differs, or that an operator such as NonZero sizes."""
    expected, actual = truth[pair.other.name], given[pair.other.name]
    axis = padded_axis(expected, pair.source.shape)
    if axis is not None or expected.ndim != actual.ndim:
        return axis
    free = [place for place, size in enumerate(pair.source.shape) if isinstance(size, str) and size not in known]
    apart = [place for place in free if expected.shape[place + 1] != actual.shape[place + 1]]
    if len(apart) == 1:
        return apart[0]
    is_decided = len(free) == 1 and any(
        sizes_by_value(path, pair.source.name) for path, model_format in graphs[:1] if model_format == "onnx"
    )
    return free[0] if is_decided else None


def _tracer(path: Path, model_format: str) -> tuple[Tracer, tuple[str, ...]] | None:
    try:
        if model_format == "onnx":
            from converters.proof.onnx_origins import OnnxOrigins

            onnx = OnnxOrigins(path)
            return Tracer(onnx), onnx.outputs
        if layout_of(model_format) == "tflite":
            from converters.proof.tflite_origins import TfliteOrigins

            tflite = TfliteOrigins(path)
            return Tracer(tflite), tflite.outputs
    except InputError as error:  # our reader is stricter than the engine
        _log.debug("%s is not traced: %s", path, error)
    return None


def _check(place: int, pair: TensorPair, tracers: Sequence[tuple[Tracer, tuple[str, ...]]]) -> OutputCheck:
    parts: tuple[Part, ...] = ()
    is_label: bool | None = None
    for tracer, names in tracers:
        if place >= len(names):
            continue
        name = pair.source.name if pair.source.name in names else names[place]
        if is_label is None:
            is_label = tracer.is_label(name)
        found = tracer.parts(name, concrete_shape(pair.source))
        if not parts or (len(parts) == 1 and not parts[0].natural):
            parts = found
    if _holds_whole_numbers(pair.source) and is_label is not False:
        return OutputCheck(pair.other.name, "labels")
    return OutputCheck(pair.other.name, "values", _in_result(pair, parts or whole_output(concrete_shape(pair.source))))


def _holds_whole_numbers(spec: TensorSpec) -> bool:
    return spec.quantization is None and not spec.dtype.startswith(("float", "bfloat"))


def _in_result(pair: TensorPair, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts on the axes of the result."""
    source, other = concrete_shape(pair.source), concrete_shape(pair.other)
    if len(parts) == 1 and parts[0].stop - parts[0].start == (source[parts[0].axis] if source else 1):
        return (replace(parts[0], axis=0, start=0, stop=other[0] if other else 1),)
    if pair.axes is not None:
        return tuple(replace(part, axis=pair.axes.index(part.axis)) for part in parts)
    if source == other:
        return parts
    # [1, 7] and [1, 1, 1, 7] have the same content: the axis of a part is the one with as many indices.
    wide = [axis for axis, size in enumerate(other) if size > 1]
    before = [axis for axis, size in enumerate(source) if size > 1]
    if [source[axis] for axis in before] == [other[axis] for axis in wide] and parts[0].axis in before:
        axis = wide[before.index(parts[0].axis)]
        return tuple(replace(part, axis=axis) for part in parts)
    return whole_output(other)
