"""Compare a source and its conversion at the level of the task, in addition to the tensors.

Two comparisons tell two faults apart. The same numbers, the source's own as the result's outputs can hold them, are
decoded once as the source's and once as the result's: if these differ, the result is decoded wrongly. And the result's
own numbers are compared with the source's, both decoded as the result's: if these differ, it is the conversion's
precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.pipeline.request import EXPECTED, INPUT, RESULT, SOURCE, ConvertRequest, ConvertResult, TaskAgreement
from converters.sources.source import OpenedSource
from edge.conversion.datasets import ConversionInputs
from edge.inference.facts import Specs, facts_of, inspect_file
from edge.inference.prepared_model import complete_model
from edge.inference.preprocessing import ModelHints
from runtimes.arrays import Arrays, load_arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.artifact.json_fields import to_json
from runtimes.errors import EdgeError, InputError, ProofError
from runtimes.model_files.facts import ModelFacts
from runtimes.task import Agreement, Decoder, Result, Task, named_outputs
from runtimes.tasks import recognize
from runtimes.tensors import dequantize, quantize

_UNDECODED = "tensors"
_MAX_INPUTS = 32
_REPORT = "report this with the model: the numbers are right, their meaning is not"


def with_agreement(run: Callable[[], ConvertResult], agreement: Callable[[], TaskAgreement | None]) -> ConvertResult:
    """Run a conversion and add the comparison at the level of the task, to its result or to a failed proof."""
    try:
        result = run()
    except ProofError as error:
        try:
            found = agreement()
        except EdgeError:  # the tensors' verdict is what the user needs
            found = None
        if found is None:
            raise
        details = {**error.details, "task": to_json(found)}
        raise ProofError(f"{error.message}; {found}", error.hint, details) from None
    return replace(result, task=agreement())


def compare_answers(
    source: OpenedSource, folder: Path | None, inputs: ConversionInputs, request: ConvertRequest
) -> TaskAgreement | None:
    """Compare the answers that the proof computed; None if the source has no task, or its answers cannot be decoded.

    folder: The folder that the source was exported from.
    request: The conversion, which wrote `answers`.

    Raises ProofError if the result is decoded differently from the source.
    """
    if request.answers is None or not request.answers.is_file():
        return None
    arrays = load_arrays(request.answers)
    try:
        facts = _source_facts(source, folder, inputs)
        task, decoder = recognize(facts)
    except EdgeError:
        return None  # the source cannot be run as it is, either
    if task.id == _UNDECODED:
        return None
    found = complete_model(Artifact.open(request.out), ModelHints(), _nothing, takes_pictures=False)
    sides = (task, decoder, facts.outputs), (found.task, found.decoder, found.artifact.manifest.outputs)
    pairs = list(_decode(*sides, arrays))
    if not pairs:
        return None
    _check_decoding(task, decoder, found.decoder, [same for same, _ in pairs])
    agreements = [agreement for _, agreement in pairs]
    metrics = {name: [one.metrics[name] for one in agreements if name in one.metrics] for name in agreements[0].metrics}
    worst = next((one for one in agreements if not one.agrees), agreements[0])
    return TaskAgreement(
        task=task.id,
        inputs=len(agreements),
        agreeing=sum(one.agrees for one in agreements),
        metrics={name: float(np.mean(values)) for name, values in metrics.items()},
        message=worst.message,
    )


def _source_facts(source: OpenedSource, folder: Path | None, inputs: ConversionInputs) -> ModelFacts:
    artifact = source.artifact
    hints = ModelHints(
        preprocess_options=inputs.preprocess_options,
        output=inputs.kind,
        label_offset=inputs.label_offset,
        labels=inputs.labels,
        task=inputs.task,
        rate=inputs.rate,
    )
    return facts_of(artifact, inspect_file(artifact, folder), hints, _nothing)


def _nothing() -> Specs:
    return (), ()


_Side = tuple[Task[Any], Decoder[Any], Sequence[TensorSpec]]


def _decode(source: _Side, result: _Side, arrays: Arrays) -> Iterator[tuple[Agreement, Agreement]]:
    """Yield for each input whether both decoders agree on the source's numbers, and the result with the source."""
    task = source[0]
    count = min(_MAX_INPUTS, *(len(values) for values in arrays.values()))
    if result[0].id != task.id:
        what = f"the source's outputs are decoded as {task.id}, and the artifact's as {result[0].id}"
        raise ProofError(what, _REPORT)
    held = _held(source[2], result[2], arrays)
    for index in range(count):
        try:
            wanted = _result(source, held, SOURCE, index)
        except InputError:
            continue  # made-up inputs may lead to what no result can be
        expected, actual = (_result(result, arrays, kind, index) for kind in (EXPECTED, RESULT))
        yield task.compare(wanted, expected), task.compare(expected, actual)


def _held(source: Sequence[TensorSpec], result: Sequence[TensorSpec], arrays: Arrays) -> Arrays:
    """Return the arrays with the source's numbers as the result's outputs hold them.

    In 8 bits, boxes may overlap a little more or less, so that other ones are kept: that is no fault of a decoder.
    The parts of outputs that were split have no counterpart in the source.
    """
    held = dict(arrays)
    if len(source) != len(result):
        return held
    by_name = {spec.name: spec for spec in result}
    for place, spec in enumerate(source):
        name, other = SOURCE + spec.name, by_name.get(spec.name, result[place])
        if name in held and other.quantization is not None and len(other.quantization.scales) == 1:
            held[name] = dequantize(quantize(held[name], other), other.quantization)
    return held


def _result(side: _Side, arrays: Arrays, kind: str, index: int) -> Result:
    """Decode one input's outputs, as the engine gives them: quantized where the model's outputs are."""
    task, decoder, specs = side
    real = named_outputs(_arrays_of_sample(arrays, kind, index), specs)
    known = {spec.name: spec for spec in specs}
    outputs = {name: quantize(values, known[name]) if name in known else values for name, values in real.items()}
    inputs = _arrays_of_sample(arrays, INPUT, index)
    reads = {name: inputs[name] for name in decoder.reads() if name in inputs}
    result: Result = task.decode({**outputs, **reads}, decoder)
    return result


def _arrays_of_sample(arrays: Arrays, kind: str, index: int) -> Arrays:
    return {name[len(kind) :]: np.asarray(values[index]) for name, values in arrays.items() if name.startswith(kind)}


def _check_decoding(
    task: Task[Any], source: Decoder[Any], result: Decoder[Any], agreements: Sequence[Agreement]
) -> None:
    wrong = next((one for one in agreements if not one.agrees), None)
    if wrong is None:
        return
    names = type(source).__name__, type(result).__name__
    how = f"by {names[0]} and {names[1]}" if names[0] != names[1] else f"both by {names[0]}"
    raise ProofError(
        f"the same numbers are decoded to another {task.id} result in the artifact than in the source ({how}): "
        f"{wrong.message}",
        _REPORT,
    )
