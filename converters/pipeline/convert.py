"""Convert a source to a verified artifact: open, convert step by step, compare, write. Runs in a worker process.

The input is one `ConvertRequest`. Before that, `edge.conversion.planning` has chosen the route,
`edge.inference.images` has decoded the pictures, and `converters.pipeline.staging` has created an empty folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from converters.base import ConversionOutput
from converters.pipeline.candidate import Candidate, CandidateVerdict
from converters.pipeline.execute import CompletedTask, copy_source, run_conversions
from converters.pipeline.gate import MakeGate, choose_gate
from converters.pipeline.reference import Reference, run_source, with_fixed_sizes, with_plain_graph
from converters.pipeline.repair import (
    Attempt,
    with_last_layers_in_float,
    with_lossy_layers_in_float,
    with_split_outputs,
)
from converters.pipeline.request import EXPECTED, INPUT, RESULT, SOURCE, ConvertRequest, ConvertResult
from converters.registry import converter
from converters.sources.artifact import open_source
from converters.sources.source import OpenedSource
from runtimes.arrays import save_arrays
from runtimes.errors import RefusedError
from runtimes.jobs import Report

_MAX_ANSWERS_BYTES = 2**27


def convert(request: ConvertRequest, report: Report, make_gate: MakeGate | None = None) -> ConvertResult:
    """Convert, verify and write; `make_gate` scores the result on the labeled inputs of the request.

    Raises ProofError if the result's outputs differ from the source's, or its top-1 accuracy drops more than allowed;
    the artifact is written anyway, for inspection.
    """
    steps = [converter(name) for name in request.steps]
    request, source = with_fixed_sizes(*with_plain_graph(request, open_source(request.source)))
    seconds: dict[str, float] = {}
    with _timed(seconds, "source"):
        report({"doing": f"running the source ({source.format})", "done": 0, "total": len(steps) + 2})
        reference = run_source(request, source)
        gate = choose_gate(request, source, reference, make_gate)
    done = run_conversions(request, source, steps, reference, report)
    seconds |= {one.task.step.id: one.seconds for one in done}
    with _timed(seconds, "proof"):
        report({"doing": "comparing with the source", "done": len(steps) + 1, "total": len(steps) + 2})
        output = done[-1].output if done else _copy_artifact(source, request.out)
        _check_states(request, output)
        candidate = Candidate(
            request=request,
            source=source,
            reference=reference,
            output=output,
            gate=gate,
            graphs=_graphs(source, done, output),
        )
        result = Attempt(candidate=candidate, verdict=candidate.write(), done=done)
    if result.verdict.proof.slices.failed and not request.options.no_repair:
        with _timed(seconds, "repair"):
            result = with_last_layers_in_float(result, report)
            if result.verdict.proof.slices.failed:
                result = with_split_outputs(result, report)
    if gate is not None and not result.verdict.passed:
        with _timed(seconds, "mending"):
            result = with_lossy_layers_in_float(result, report)
    candidate, verdict = result.candidate, result.verdict
    if request.answers is not None:
        _save_answers(request.answers, reference, verdict)
    if not verdict.proof.passed:
        report({"doing": "finding the first difference", "done": len(steps) + 1, "total": len(steps) + 2})
        raise candidate.failure(verdict)
    report({"doing": "done", "done": len(steps) + 2, "total": len(steps) + 2})
    artifact = verdict.artifact
    return ConvertResult(
        format=artifact.manifest.format,
        precision=artifact.manifest.precision,
        files=tuple(sorted([*artifact.manifest.files, "manifest.json"])),
        proof=artifact.manifest.proof,
        accuracy=artifact.manifest.proof.get("accuracy"),
        notes=(*reference.notes, *(gate.notes() if gate else ()), *candidate.output.notes, *verdict.notes),
        left=candidate.output.remaining_commands,
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )


def _check_states(request: ConvertRequest, output: ConversionOutput) -> None:
    """Raise RefusedError for states as inputs and outputs that are not passed on: by a cross-check."""
    if output.states and output.cross_check is not None:
        what = f"{request.source.name} keeps a state, which edge does not pass on in the older engine of that device"
        raise RefusedError(what, "what works: --to tflite from a .keras or .tflite file, --to onnx or --to openvino")


def _copy_artifact(source: OpenedSource, out: Path) -> ConversionOutput:
    """Return the source as it is, copied to `out`."""
    return ConversionOutput(model=copy_source(source, out), states=source.artifact.manifest.states)


def _save_answers(place: Path, reference: Reference, verdict: CandidateVerdict) -> None:
    """Write the answers of the proof to its first inputs, see `ConvertRequest.answers`."""
    inputs = reference.samples.inputs.samples
    kinds = {SOURCE: reference.answers, EXPECTED: verdict.truth, RESULT: verdict.given, INPUT: inputs}
    arrays = {f"{kind}{name}": values for kind, one in kinds.items() for name, values in one.items()}
    count = min(len(values) for values in arrays.values())
    size = sum(values.nbytes // max(1, len(values)) for values in arrays.values())
    save_arrays(
        place, {name: values[: min(count, max(1, _MAX_ANSWERS_BYTES // size))] for name, values in arrays.items()}
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _graphs(
    source: OpenedSource, done: Sequence[CompletedTask], output: ConversionOutput
) -> tuple[tuple[Path, str], ...]:
    """Return the models that compute the outputs, with their formats: the source, intermediate ones, the result."""
    steps = [(one.task.model, one.task.step.source) for one in done[1:]]
    final = [(output.model, output.format or done[-1].task.step.target)] if done else []
    return ((source.model, source.format), *steps, *final)
