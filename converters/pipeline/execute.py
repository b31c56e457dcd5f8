"""Run the conversion steps of a route, and the model that computes as the result's device does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.base import ConversionOutput, Converter
from converters.calibration.dataset import Calibration, to_model_dtypes
from converters.options import ConvertOptions
from converters.pipeline.reference import Reference
from converters.pipeline.request import ConvertRequest
from converters.pipeline.tensor_matching import pair_tensors, reshape_answers
from converters.pipeline.verification import Verification, complete_checks, map_tensors, verify
from converters.proof.output_checks import output_checks, row_checks
from converters.sources.source import OpenedSource
from runtimes.artifact import Artifact, Manifest, TensorSpec
from runtimes.jobs import Report
from runtimes.model_files.detect import FORMATS
from runtimes.registry import open_session
from runtimes.stateful_session import StatefulSession
from runtimes.verification.selfcheck import answers


@dataclass(frozen=True, kw_only=True)
class ConversionTask:
    """One step with its inputs; `calibration` only if the step loses precision, `states` are those of `model`."""

    step: Converter
    model: Path
    folder: Path
    options: ConvertOptions
    calibration: Calibration | None
    states: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> ConversionOutput:
        """Convert, creating the folder if necessary."""
        self.folder.mkdir(parents=True, exist_ok=True)
        output = self.step.convert(self.model, self.folder, self.options, self.calibration)
        return output if output.states else replace(output, states=self.states)


@dataclass(frozen=True, kw_only=True)
class CompletedTask:
    """A task, its output and its duration."""

    task: ConversionTask
    output: ConversionOutput
    seconds: float


def run_conversions(
    request: ConvertRequest, source: OpenedSource, steps: Sequence[Converter], reference: Reference, report: Report
) -> tuple[CompletedTask, ...]:
    """Run all steps; the last writes to `request.out`, the others to folders in `request.scratch`."""
    done: list[CompletedTask] = []
    for number, step in enumerate(steps, 1):
        report({"doing": step.id, "done": number, "total": len(steps) + 2})
        start = time.perf_counter()
        task = _task(request, source, steps, reference, done)
        output = task.run()
        done.append(CompletedTask(task=task, output=output, seconds=time.perf_counter() - start))
    return tuple(done)


def copy_source(source: OpenedSource, out: Path) -> Path:
    """Copy the source and the files that it references into `out`; returns the model's path there."""
    model = source.model
    if model.is_dir():
        shutil.copytree(model, out / model.name)
        return out / model.name
    further = [model.parent / name for name in FORMATS[source.format].further_files(model)]
    for path in (model, *further):
        place = out / path.relative_to(model.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return out / model.name


def _task(
    request: ConvertRequest,
    source: OpenedSource,
    steps: Sequence[Converter],
    reference: Reference,
    done: Sequence[CompletedTask],
) -> ConversionTask:
    """Return the task of the next step."""
    step = steps[len(done)]
    last = len(done) == len(steps) - 1
    model = done[-1].output.model if done else source.model
    states = done[-1].output.states if done else source.artifact.manifest.states
    options = request.options if last else _options_before(request, steps[len(done) + 1])
    calibration = None
    # fp16 does not calibrate; it uses the samples to check that all values fit in fp16.
    known = reference.samples.inputs if options.precision == "fp16" else reference.calibration
    if options.precision != step.reads(options.precision) and known is not None:
        if states:
            calibration = _with_states(as_artifact(model, step.source, states), reference, known)
        else:
            specs = read_inputs(model, step.source) if done else reference.inputs
            calibration = Calibration(to_model_dtypes(specs, map_tensors(reference.inputs, specs, known.samples)))
    options = replace(options, scratch=str(request.scratch))
    folder = request.out if last else request.scratch / step.id
    return ConversionTask(
        step=step, model=model, folder=folder, options=options, calibration=calibration, states=states
    )


def _with_states(artifact: Artifact, reference: Reference, known: Calibration) -> Calibration:
    """Return the samples as the model of a step takes them, with its states while they follow one another."""
    with open_session(artifact) as session:
        assert isinstance(session, StatefulSession)
        specs = session.inputs
        feeds = to_model_dtypes(specs, map_tensors(reference.inputs, specs, known.samples))
        rows = []
        for place in range(len(known)):
            rows.append(session.held)
            session.run({name: values[place] for name, values in feeds.items()})
    return Calibration({**feeds, **{name: np.stack([row[name] for row in rows]) for name in rows[0]}})


def _options_before(request: ConvertRequest, following: Converter) -> ConvertOptions:
    """Return the options of an intermediate step, by the requirements of the next one."""
    opset = following.source_opset(request.options)
    return replace(request.options, precision=following.reads(request.options.precision), io_dtype=None, opset=opset)


def read_inputs(model: Path, model_format: str) -> tuple[TensorSpec, ...]:
    """Open a model file and return its inputs."""
    with open_session(as_artifact(model, model_format)) as session:
        return tuple(session.inputs)


def as_artifact(
    model: Path, model_format: str, states: Mapping[str, str] | None = None, precision: str = "fp32"
) -> Artifact:
    """Return a model file as an artifact; `states` are those of the model."""
    return Artifact(
        model.parent,
        Manifest(name=model.stem, format=model_format, precision=precision, model=model.name, states=states or {}),
    )


def verify_device_model(
    output: ConversionOutput, precision: str, reference: Reference, graphs: Sequence[tuple[Path, str]]
) -> Verification:
    """Run the device model of a conversion on the reference samples, and compare its outputs with the source's.

    They are compared in its own axes and names. `graphs` are the models that tell the parts of the outputs; see
    `converters.proof.output_checks`.
    """
    model = output.device_model
    assert model is not None
    with open_session(as_artifact(model.model, model.format, output.states, precision)) as session:
        feeds = to_model_dtypes(
            session.inputs, map_tensors(reference.inputs, session.inputs, reference.samples.inputs.samples)
        )
        given = answers(session, feeds)
        outputs = tuple(session.outputs)
    expected = map_tensors(reference.outputs, outputs, reference.answers, "output")
    expected = {name: reshape_answers(expected[name], values) for name, values in given.items()}
    pairs = pair_tensors(reference.outputs, outputs, "output")
    checks = row_checks(output_checks(graphs, pairs), pairs, reference.inputs, graphs, expected, given)
    return verify(precision, expected, given, complete_checks(checks, expected, given, outputs))
