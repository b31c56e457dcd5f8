"""Running the steps of a route, one after the other, on the way from a source to a result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.calibration import Calibration
from converters.onnx_opset import WRITTEN_OPSET
from converters.proof import fed, translated
from converters.request import Request
from converters.source import Source
from converters.steps import Made, Step, StepOptions, step_id, taken
from converters.tensorrt.releases import Release
from converters.truth import Truth, opened
from runtimes.artifact import Artifact, Manifest, TensorSpec
from runtimes.onnx_file import external_files

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """One step with all that it needs; `calibration` only where it loses precision."""

    step: Step
    model: Path
    folder: Path
    options: StepOptions
    calibration: Calibration | None

    def run(self) -> Made:
        """Convert; the folder is made where it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        answer = self.step.convert(self.model, self.folder, self.options, self.calibration)
        return answer if isinstance(answer, Made) else Made(answer)


@dataclass(frozen=True)
class Done:
    """A task, what it made, and how long it took."""

    task: Task
    made: Made
    seconds: float


def run_steps(
    request: Request, source: Source, steps: Sequence[Step], truth: Truth, report: Report
) -> tuple[Done, ...]:
    """All steps; the last writes into `request.out`, the others into folders of `request.scratch`."""
    done: list[Done] = []
    for number, step in enumerate(steps, 1):
        report({"doing": step_id(step), "done": number, "total": len(steps) + 2})
        start = time.perf_counter()
        task = _task(request, source, steps, truth, done)
        made = task.run()
        done.append(Done(task, made, time.perf_counter() - start))
    return tuple(done)


def packed(source: Source, out: Path) -> Path:
    """The source itself in the folder `out`, with the files that it names; returns the model's place there."""
    model = source.model
    if model.is_dir():
        shutil.copytree(model, out / model.name)
        return out / model.name
    names = external_files(model) if source.format == "onnx" else set()
    beside = [model.parent / name for name in names]
    if source.format == "openvino":
        beside.append(model.with_suffix(".bin"))
    for path in (model, *beside):
        place = out / path.relative_to(model.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return out / model.name


def _task(request: Request, source: Source, steps: Sequence[Step], truth: Truth, done: Sequence[Done]) -> Task:
    """The next step's task, after those done."""
    step = steps[len(done)]
    last = len(done) == len(steps) - 1
    model = done[-1].made.model if done else source.model
    options = request.options if last else _options_before(request, steps[len(done) + 1])
    calibration = None
    # fp16 fits nothing to the samples: it looks whether all that they lead to fits in fp16.
    known = truth.samples.inputs if options.precision == "fp16" else truth.calibration
    if options.precision != taken(step) and known is not None:
        specs = _inputs_of(model, step.source) if done else truth.inputs
        calibration = Calibration(fed(specs, translated(truth.inputs, specs, known.samples)))
    options = replace(options, scratch=str(request.scratch))
    return Task(step, model, request.out if last else request.scratch / step_id(step), options, calibration)


def _options_before(request: Request, following: Step) -> StepOptions:
    """What is asked of a step that is not the last: what the following one takes."""
    opset = request.options.opset
    if following.target == "tensorrt":
        # Its step lifts the graph to newer ones, and brings it to the newest of its release where none was asked for.
        opset = min(opset or Release.asked(request.options.release).max_opset, WRITTEN_OPSET)
    return replace(request.options, precision=taken(following), io_dtype=None, opset=opset)


def _inputs_of(model: Path, model_format: str) -> tuple[TensorSpec, ...]:
    with opened(Artifact(model.parent, Manifest(model.stem, model_format, "fp32", model.name))) as session:
        return tuple(session.inputs)
