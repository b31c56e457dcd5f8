"""Plan and run a conversion: pictures are decoded in this process, everything else happens in a worker process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from converters.calibration.generator import is_reference
from converters.environments import environment
from converters.pipeline.request import SIZES, ConvertRequest, ConvertResult, ExportJob
from converters.pipeline.staging import ARTIFACT, failed_path, staging
from converters.pytorch.hugging_face_config import PROCESSOR
from converters.registry import converter
from converters.sources import check_options, source_of
from converters.sources.artifact import open_source
from converters.sources.source import Export, OpenedSource, SourceHints, SourceOptions
from edge.console.progress import OnProgress
from edge.conversion.datasets import ConversionInputs, calibration_samples, describe_code, evaluation_inputs
from edge.conversion.language_model import LlmConversion, plan_llm_conversion
from edge.conversion.planning import ConversionPlan, ConversionRequest, plan_conversion, with_inspected_specs
from edge.conversion.task import describe_to_page, find_row_scores, kind_in_file, stated_task
from edge.conversion.task_agreement import compare_answers, with_agreement
from edge.inference.preprocessing import PreprocessOptions, override, preprocess_for
from edge.workers.process import OnProgress as OnWorkerProgress
from edge.workers.process import Worker, step_progress
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.errors import EdgeError, UsageError
from runtimes.jobs import DescribeJob
from runtimes.shapes import with_shapes

_TIMEOUT_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion that has been planned and checked, but not started.

    source: The model.
    plan: The steps, and the format and precision of their result.
    inputs: The data that the user passed with the model.
    """

    source: OpenedSource
    plan: ConversionPlan
    inputs: ConversionInputs

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before it runs: own code, skipped formats, environments to create."""
        return (*self.plan.notes, *(environment(name).described for name in self.plan.environments))

    def run(self, out: Path | None, force: bool, on_progress: OnProgress) -> ConvertResult:
        """Convert as planned into the folder `out`; None names it after the model, format and precision.

        The folder is created completely or not at all. Raises ProofError if the result fails verification; it is then
        kept as `<out>.failed`.
        """
        plan, name = self.plan, self.source.artifact.manifest.name
        place = out or Path(f"{name}-{plan.format}-{plan.precision}")
        on_step = step_progress(on_progress, len(plan.steps) + 2)
        users_model = self.source.export.path if self.source.export else self.source.model
        with (
            staging(place, force) as work,
            _errors_name(users_model, work),
            Worker("edge.evaluation.worker") as worker,
        ):
            source, inputs, steps, export_notes = self.source, self.inputs, plan.steps, list[str]()
            _make_environments(self, worker, on_step)
            export, hints = source.export, SourceHints()
            if export is not None:
                source, hints = _export(export, plan, work, worker), export.hints()
                if source.format != self.source.format:
                    steps = _after_onnx(plan)
                    export_notes = [f"{export.path} is exported to ONNX instead: no exported program can hold it"]
            inputs = _with_hints(inputs, hints, work)
            folder = export.path if export and export.path.is_dir() else None
            stated = stated_task(source, inputs, folder)
            if stated is None:
                preprocess, notes = _preprocess(source, inputs.preprocess_options, hints, worker, plan.options.shapes)
            else:
                preprocess, notes, inputs = stated.picture, list(stated.notes), replace(inputs, labels=None)
            samples, more = calibration_samples(inputs.calibration, preprocess, work, on_step)
            request = ConvertRequest(
                source=source.artifact.path if not source.artifact.is_bare else source.model,
                steps=steps,
                format=plan.format,
                options=plan.options,
                out=work / ARTIFACT,
                scratch=work / "steps",
                samples=samples,
                preprocess=preprocess,
                kind=inputs.kind,
                kind_in_file=kind_in_file(source, inputs),
                label_offset=inputs.label_offset,
                labels=inputs.labels,
                kept=str(failed_path(place)),
                evaluation=inputs.evaluate if stated else evaluation_inputs(inputs, source, preprocess, work),
                max_drop=inputs.max_drop,
                origin=export.origin() if export else None,
                task=stated.statement if stated else None,
                tokenizer=stated.tokenizer if stated else None,
                answers=work / "answers.npz",
                row_scores=find_row_scores(source, inputs) if plan.format != "browser" else None,
            )
            result = with_agreement(
                lambda: worker.run(request, timeout_s=_TIMEOUT_S, on_progress=on_step),
                lambda: compare_answers(source, folder, inputs, request),
            )
            if plan.format == "browser":
                describe_to_page(request.out)
        return replace(result, artifact=place, notes=(*export_notes, *notes, *more, *result.notes))


@contextmanager
def _errors_name(model: Path, work: Path) -> Iterator[None]:
    """Name the user's model in errors about a file that edge wrote into `work` on the way."""
    file = rf"{re.escape(model.stem)}(?P<suffix>\.\w+)?|[^\s:/\\]+"
    written = re.compile(rf"{re.escape(str(work))}[/\\](?P<folders>(?:[^\s/\\]+[/\\])*)(?:{file})")

    def named(found: re.Match[str]) -> str:
        folders, suffix = re.split(r"[/\\]", found["folders"]), found["suffix"]
        if SIZES in folders:
            return f"{model} with the given sizes"
        if ARTIFACT in folders:
            return f"the result of {model}"
        return f"{model} as {suffix}" if suffix and suffix != model.suffix else str(model)

    try:
        yield
    except EdgeError as error:
        if "cannot open" in error.message and any(SIZES in one["folders"] for one in written.finditer(error.message)):
            error.hint = "give other sizes with --shape, or leave it out: sizes stay free where the target can"
        error.message = written.sub(named, error.message)
        raise


def plan(
    model: Path,
    request: ConversionRequest,
    inputs: ConversionInputs,
    source_options: SourceOptions | None = None,
    *,
    hashed: bool = False,
) -> Conversion | LlmConversion:
    """Inspect the model and choose the conversion steps, without writing anything.

    With `hashed`, the files of an artifact are checked against its digests. Raises InputError if the model is broken or
    its format unknown, RefusedError if the device does not support the request, and UsageError for options or targets
    that do not apply.
    """
    if llm := plan_llm_conversion(model, request, inputs):
        return llm
    chosen = source_of(model)
    given = source_options or SourceOptions()
    check_options(chosen, given, model)
    options = chosen.Options.of(given)
    source = chosen.open(model, replace(options, hashed=hashed))
    source = _with_specs(source)
    steps = plan_conversion(source, request, has_calibration=inputs.calibration is not None)
    # A program was exported in these sizes already.
    shapes = () if source.format == "pt2" and source.export else (*options.shapes, *options.inputs)
    with_shapes(source.artifact.manifest.inputs, shapes if source.artifact.manifest.inputs else ())
    notes = (*_code_notes(source, inputs), *steps.notes)
    planned = replace(steps, notes=notes, options=replace(steps.options, shapes=shapes))
    return Conversion(source=source, plan=planned, inputs=inputs)


def _with_specs(source: OpenedSource) -> OpenedSource:
    """Add the precision and the inputs from the file, as far as it has them if it is exported first."""
    if source.export is None:
        return with_inspected_specs(source)
    if source.precision != "unknown":  # what is exported does not exist yet
        return source
    found = with_inspected_specs(source).artifact  # its inputs may be those of another signature
    return replace(source, artifact=replace(found, manifest=replace(found.manifest, inputs=())))


def _code_notes(source: OpenedSource, inputs: ConversionInputs) -> list[str]:
    """Describe what runs before the planned steps: an export, and the user's own code."""
    calibration = str(inputs.calibration)
    return [
        *([source.export.description] if source.export else []),
        *([describe_code(calibration)] if inputs.calibration is not None and is_reference(calibration) else []),
    ]


def _make_environments(conversion: Conversion, worker: Worker, on_step: OnWorkerProgress) -> None:
    """Create the plan's environments.

    This is done in this process, so that progress is shown, and first, because it may fail. A source that no engine can
    open must not cost minutes and a download: if there is something to create, it is opened before.
    """
    needed = [environment(name) for name in conversion.plan.environments]
    if conversion.source.export is None and not all(one.python.exists() for one in needed):
        _describe_inputs(conversion.source, worker)
    for one in needed:
        one.create(conversion.inputs.pythons, lambda text: on_step({"doing": text, "done": 0}))


def _with_hints(inputs: ConversionInputs, hints: SourceHints, work: Path) -> ConversionInputs:
    """Fill in the labels and the output kind from the source where the user did not specify them."""
    labels = inputs.labels
    if hints.labels and labels is None:
        labels = work / "labels.txt"
        labels.write_text("\n".join(hints.labels) + "\n", encoding="utf-8")
    return replace(inputs, labels=labels, kind=inputs.kind or hints.kind)


def _preprocess(
    source: OpenedSource, requested: PreprocessOptions, hints: SourceHints, worker: Worker, shapes: Sequence[str]
) -> tuple[Preprocess | None, list[str]]:
    """Return the preprocessing and notes, from the user's options, else the manifest, else the source's folder.

    The model is opened only if its input shapes are needed.
    """
    known, notes = source.artifact.manifest.preprocess or hints.preprocess, list(hints.notes)
    if not requested.anything and not hints.preprocess:
        return known, notes
    specs = with_shapes(source.artifact.manifest.inputs or _describe_inputs(source, worker), shapes)
    if requested.anything and len(specs) != 1:
        raise UsageError(f"the model takes {len(specs)} inputs, not one picture", "leave out --preprocess")
    if hints.preprocess and (len(specs) != 1 or specs[0].shape[2:] != hints.preprocess.crop):
        known = None
        notes.append(f"{PROCESSOR} is not used: it produces pictures of another size than the model takes")
    if not requested.anything:
        return known, notes
    return override(known, requested, specs[0]) if known else preprocess_for(requested, specs[0]), notes


def _describe_inputs(source: OpenedSource, worker: Worker) -> tuple[TensorSpec, ...]:
    return tuple(worker.run(DescribeJob(str(source.model)), timeout_s=_TIMEOUT_S).inputs)


def _export(export: Export, plan: ConversionPlan, work: Path, worker: Worker) -> OpenedSource:
    """Export the model into a subfolder of `work`, in the converter process, and open the result."""
    folder = work / "exported"
    folder.mkdir()
    following = _after_onnx(plan)
    opset = converter(following[0]).source_opset(plan.options) if following else plan.options.opset
    options = replace(export.options, opset=opset)
    job = ExportJob(source=export.source.id, where=str(export.path), options=options, out=folder)
    return open_source(worker.run(job, timeout_s=_TIMEOUT_S).model, hashed=False)


def _after_onnx(plan: ConversionPlan) -> tuple[str, ...]:
    """Return the planned steps after the one that writes ONNX; all of them if none does."""
    place = next((place for place, step in enumerate(plan.steps, 1) if converter(step).target == "onnx"), 0)
    return plan.steps[place:]
