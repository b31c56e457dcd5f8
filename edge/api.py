"""The Python API: what the commands of `edge` do, as functions that return typed results.

    import edge

    with edge.open("model.onnx") as model:
        answers = model.run({"input": array})

Every error is an `edge.EdgeError` or a subclass of it (`runtimes/errors.py`). Long-running functions call
`on_progress` with an `edge.ProgressEvent`, from the calling thread or another one. Notes that accompany a result are
logged to the logger "edge". Imports are deferred to the function that needs them, so that `import edge` stays fast.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.console.progress import OnProgress, ProgressEvent, ignore_progress

if TYPE_CHECKING:
    from converters.options import ConvertOptions
    from converters.pipeline.request import ConvertResult
    from converters.sources.source import SourceOptions
    from edge.benchmark.language_model import LlmBenchOptions
    from edge.benchmark.runner import BenchOptions, BenchReport
    from edge.compatibility.tensor_model import CheckResult
    from edge.conversion.datasets import ConversionInputs
    from edge.estimation.language_model import LanguageModelEstimates
    from edge.estimation.results import EstimateReport
    from edge.evaluation.report import EvaluateReport
    from edge.evaluation.runner import EvaluateOptions
    from edge.inference.model import Model
    from edge.inference.prediction import Prediction
    from edge.inference.preprocessing import ModelHints
    from edge.inspection import Inspection
    from edge.llm.session import WorkerSession
    from edge.machine.this_machine import DevicesReport
    from edge.remote.board import Board
    from edge.remote.deploy import Deployment
    from edge.reporting.report import ReportPage
    from edge.tuning.runner import TuneOptions, TuneReport
    from runtimes.jobs import VerifyAnswer
    from runtimes.llm.session import LoadOptions

# {input name: sizes}, or texts as on the command line: "x=1x3x480x640".
Shapes = Mapping[str, Sequence[int]] | Sequence[str]

_log = logging.getLogger(__name__)
_VERIFY_S = 600.0
_SOAK_S = 1.0  # for each inference of a soak test


def devices(on: str | None = None) -> DevicesReport:
    """Describe this machine, or the board `on`: its hardware, accelerators, engines and matching device profiles."""
    from edge.machine.this_machine import describe, report

    if on is None:
        return describe()
    from edge.remote.facts import remote_facts

    facts = remote_facts(on)
    return report(facts["machine"], facts["conditions"], facts["engines"])


def inspect(model: str | Path, hints: ModelHints | None = None) -> Inspection:
    """Describe the contents of a model file or artifact, and what it does, without loading it into an engine.

    hints: What the file does not say, as for `open`.

    Raises InputError if the file is broken, and UsageError if its format cannot be inspected.
    """
    from edge.inference.describe import describe
    from edge.inference.hugging_face_folder import with_folder
    from edge.inference.preprocessing import ModelHints
    from edge.inspection import inspect as inspect_artifact
    from runtimes.artifact import Artifact

    artifact = Artifact.open(Path(model))
    found = inspect_artifact(artifact)
    return replace(found, task=describe(artifact, with_folder(found, artifact.model), hints or ModelHints()))


def check(
    model: str | Path,
    device: str,
    *,
    memory: int | str | None = None,
    context: int | None = None,
    shapes: Shapes = (),
) -> CheckResult:
    """Check node by node whether a model runs on a device, without writing anything.

    memory: The device's memory in bytes or as "4GB"; for language models only.
    context: The context length in tokens; for language models only.
    shapes: Sizes for free axes, as in `convert`.

    The result's `runs` is False if the device cannot run the model. Raises UsageError for an unknown device.
    """
    from edge.compatibility.language_model import parse_size
    from edge.compatibility.tensor_model import check as check_model
    from runtimes.shapes import shape_texts

    memory = parse_size(memory) if isinstance(memory, str) else memory
    return check_model(Path(model), device, memory, context, shape_texts(shapes))


def estimate(
    model: str | Path, device: str | None = None, *, precision: str | None = None, memory: str | None = None
) -> EstimateReport | LanguageModelEstimates:
    """Estimate latency, energy and memory of a model on a device without having it.

    model: A TFLite or ONNX model; or a language model (GGUF), whose speed follows from the bandwidth of the memory.
    device: A device; None estimates for every device of which enough is known.
    precision: "fp32" or "int8"; None estimates both. Not for language models.
    memory: Language models: the device's memory, such as "8GB", if it is sold with several sizes.

    Raises RefusedError if too little is known about the device.
    """
    from runtimes.artifact import Artifact
    from runtimes.errors import UsageError
    from runtimes.model_files.detect import format_of, is_language_model

    path = Path(model)
    if is_language_model(format_of(Artifact.open(path).model)):
        from edge.compatibility.language_model import parse_size
        from edge.estimation.language_model import estimate_language_model

        if precision is not None:
            raise UsageError("a language model has the precision of its file", "leave out --precision")
        return estimate_language_model(path, device, None if memory is None else parse_size(memory))
    if memory is not None:
        raise UsageError("--memory is for language models", "leave it out")
    from edge.estimation.estimate import estimate_model

    return estimate_model(path, device, precision)


def convert(
    model: str | Path,
    out: str | Path | None = None,
    *,
    device: str | None = None,
    format: str | None = None,
    precision: str | None = None,
    calibration: str | Path | None = None,
    shapes: Shapes = (),
    options: ConvertOptions | None = None,
    source_options: SourceOptions | None = None,
    inputs: ConversionInputs | None = None,
    force: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> ConvertResult:
    """Convert a model for `device`, to `format`, or both, verify the result against the model, and write an artifact.

    model: A file, a folder, or "module:callable", which names your own code that returns a torch.nn.Module.
    out: The artifact's folder; None names it after the model, format and precision.
    calibration: Pictures or inputs of the real task, required for int8; also a field of `inputs`.
    shapes: Sizes for free axes: {"x": (1, 3, 480, 640)}, or as on the command line, ["x=1x3x480x640"].
    options: The converter's options; each converter defines its own class.
    source_options: The source's options, such as `converters.pytorch.inputs.TorchOptions`.
    inputs: Other data that belongs to the model: labels, preprocessing, labeled inputs to measure accuracy on.
    force: Replace an existing artifact.

    Raises ProofError if the result's outputs differ from the model's, and RefusedError if the device does not support
    what was requested.
    """
    from converters.options import ConvertOptions
    from converters.sources.source import SourceOptions
    from edge.conversion.convert import plan
    from edge.conversion.datasets import ConversionInputs
    from edge.conversion.planning import ConversionRequest
    from runtimes.shapes import shape_texts

    request = ConversionRequest(device=device, format=format, precision=precision, options=options or ConvertOptions())
    if shapes:
        given = source_options or SourceOptions()
        source_options = replace(given, shapes=(*given.shapes, *shape_texts(shapes)))
    inputs = inputs or ConversionInputs()
    if calibration is not None:
        inputs = replace(inputs, calibration=Path(calibration))
    conversion = plan(Path(model), request, inputs, source_options)
    for note in conversion.notes:
        _log.info("note: %s", note)
    return conversion.run(Path(out) if out is not None else None, force, on_progress)


def verify(
    artifact: str | Path,
    *,
    runtime: str | None = None,
    on: str | None = None,
    browser: str | Path | None = None,
    soak: int = 0,
) -> VerifyAnswer:
    """Check an artifact's digests, and that its outputs on this machine match those of its source.

    on: "browser" runs the page of an artifact for the browser in one of this machine; None runs the engine.
    browser: The program of Chromium or Chrome; None finds one.
    soak: How many inferences must answer the same inputs alike; 0: as many as 0.2 s allow, and at least 3.

    The result's `passed` is the verdict. Raises InputError if a file has changed, and for a bare model file.
    """
    from edge.workers.process import run_job
    from runtimes.artifact import Artifact
    from runtimes.errors import InputError, UsageError
    from runtimes.jobs import EngineOptions, VerifyJob

    opened = Artifact.open(Path(artifact))
    if opened.is_bare:
        raise InputError(f"{artifact} is a bare model file: there is nothing to verify it against", "convert it first")
    if on is None and browser is None:
        return run_job(VerifyJob(str(opened.path), runtime, soak=soak), timeout_s=_VERIFY_S + soak * _SOAK_S)
    if on != "browser":
        raise UsageError(
            f"an artifact is verified here or on 'browser', not on '{on}'", "edge deploy verifies on boards"
        )
    if soak:
        raise UsageError("in a browser the page itself compares the 1st, 2nd and 100th inference", "leave out --soak")
    options = EngineOptions(settings={"browser": str(browser)} if browser is not None else {})
    return run_job(VerifyJob(str(opened.path), runtime, options), module="edge.web.worker", timeout_s=_VERIFY_S)


def open(
    model: str | Path,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    on: str | None = None,
    offline: bool = False,
    hints: ModelHints | None = None,
    top: int = 5,
    confidence: float | None = None,
    iou: float | None = None,
    shapes: Shapes = (),
    timeout_s: float = 600.0,
    on_progress: OnProgress = ignore_progress,
) -> Model:
    """Open an artifact or model file as a context manager whose engine runs in a separate process.

    runtime: The engine; None selects the preferred engine of the format.
    on: A board to run on, over ssh.
    offline: Copy the engine from this machine to the board, which needs no internet access then.
    hints: What a bare model file lacks: its task, preprocessing, the meaning of its output, its labels.
    top: The number of classes in a classification result.
    confidence: The lowest score of a detected object; None leaves it to the kind of detector.
    iou: Boxes of a class that overlap by more count as one object; None leaves it to the kind of detector.
    shapes: Sizes for free axes, as in `convert`.
    timeout_s: The time limit for one job of the worker process, in seconds.
    """
    from edge.inference.model import Model
    from edge.inference.prepared_model import EngineChoice
    from edge.workers.transport import LOCAL
    from runtimes.artifact import Artifact
    from runtimes.shapes import shape_texts
    from runtimes.task import DecodeOptions

    artifact = Artifact.open(Path(model))
    engine = EngineChoice(
        runtime=runtime, threads=threads, timeout_s=timeout_s, note=lambda text: on_progress(ProgressEvent(text=text))
    )
    place = LOCAL if on is None else _board(on, offline, on_progress)
    return Model(artifact, hints, engine, DecodeOptions(top, confidence, iou), place, shape_texts(shapes))


def run(
    model: str | Path,
    inputs: Iterable[str | Path],
    *,
    runtime: str | None = None,
    threads: int | None = None,
    on: str | None = None,
    hints: ModelHints | None = None,
    top: int = 5,
    confidence: float | None = None,
    iou: float | None = None,
    shapes: Shapes = (),
) -> list[Prediction]:
    """Run a model on pictures or array files and return one `Prediction` per sample; takes the arguments of `open`.

    Raises InputError for the first input that cannot be read.
    """
    from edge.inference.prediction import Unreadable

    predictions = []
    opened = open(
        model,
        runtime=runtime,
        threads=threads,
        on=on,
        hints=hints,
        top=top,
        confidence=confidence,
        iou=iou,
        shapes=shapes,
    )
    with opened:
        for answer in opened.predictions(inputs):
            if isinstance(answer, Unreadable):
                raise answer.error
            predictions.append(answer)
    return predictions


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path,
    options: EvaluateOptions | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
) -> EvaluateReport:
    """Measure the accuracy of artifacts or model files on labeled inputs, and compare each with the first.

    data: Pictures in a folder for each class, a CSV, a COCO JSON, or a folder with YOLO, VOC or mask files.

    Raises InputError, before any model runs, if data and models do not fit; inputs that cannot be read are logged and
    counted. The report's `check_drop` raises ProofError if a model is less accurate than the first.
    """
    from edge.evaluation.runner import EvaluateOptions, run_evaluation
    from runtimes.errors import UsageError

    paths = [Path(models)] if isinstance(models, str | Path) else [Path(one) for one in models]
    if not paths:
        raise UsageError("no model specified", "name one or more")
    return run_evaluation(paths, Path(data), options or EvaluateOptions(), on_progress)


def bench(
    models: str | Path | Sequence[str | Path],
    options: BenchOptions | LlmBenchOptions | None = None,
    *,
    compare: str | Path | None = None,
    history: bool = True,
    on_progress: OnProgress = ignore_progress,
) -> BenchReport:
    """Measure the speed of artifacts or model files, each setup in separate processes.

    options: `LlmBenchOptions` for language models (.gguf), `BenchOptions` for other models.
    compare: A file written by an earlier `edge bench --json`, or an artifact, which is measured in turn.
    history: Whether to keep the measured rows for `edge history`.

    A setup that fails becomes a row with its error. Ctrl+C stops the run; the report contains the measurements that
    were complete.
    """
    from edge.benchmark.history import record
    from edge.benchmark.language_model import LlmBenchOptions
    from edge.benchmark.runner import BenchOptions, are_language_models, run_benchmark, run_llm_benchmark
    from runtimes.errors import UsageError

    paths = [Path(models)] if isinstance(models, str | Path) else [Path(one) for one in models]
    if not paths:
        raise UsageError("no model specified", "name one or more")
    if are_language_models(paths):
        if isinstance(options, BenchOptions) or compare is not None:
            raise UsageError("BenchOptions and `compare` do not apply to language models", "pass LlmBenchOptions only")
        found = run_llm_benchmark(paths, options or LlmBenchOptions(), on_progress)
    elif isinstance(options, LlmBenchOptions):
        raise UsageError("LlmBenchOptions only apply to language models", "pass BenchOptions, or a .gguf file")
    else:
        found = run_benchmark(paths, options or BenchOptions(), Path(compare) if compare else None, on_progress)
    if history:
        record(found.rows)
    return found


def tune(
    models: str | Path | Sequence[str | Path],
    options: TuneOptions | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
) -> TuneReport:
    """Find the fastest engine, number of threads and settings for a model whose outputs are right.

    models: An artifact or a model file, or several forms of one model, such as two precisions.

    What is slow is measured once, the fastest few in turn over several rounds. An artifact's self-check decides whether
    a setting is allowed. The result's `winner` is a row of `edge bench`. Raises EngineError if nothing gives right
    outputs.
    """
    from edge.tuning.runner import TuneOptions, run_tuning
    from runtimes.errors import UsageError

    paths = [Path(models)] if isinstance(models, str | Path) else [Path(one) for one in models]
    if not paths:
        raise UsageError("no model specified", "name one or more")
    return run_tuning(paths, options or TuneOptions(), on_progress)


def report(files: Sequence[str | Path] = (), *, history: bool = False, title: str = "Measurements") -> ReportPage:
    """Make one HTML page of results, with figures, and for each number what made it and the command that repeats it.

    files: Artifacts, and files with the `--json` of bench, table, evaluate, convert or estimate. Without any, the
        published table and the newest measurements of the history.
    history: Whether to draw every setup over time, and name what changed where its latency stepped.

    The result's `html` is the page. Raises InputError for a file that a report cannot show.
    """
    from edge.reporting.report import make_report

    return make_report([Path(one) for one in files], with_history=history, title=title)


def deploy(
    artifact: str | Path,
    host: str,
    *,
    runtime: str | None = None,
    offline: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Deployment:
    """Copy an artifact to a board over ssh and verify it there; the result's `verdict.passed` is the outcome.

    With `offline`, the engine is downloaded on this machine and copied to the board. Raises HostError if the board
    cannot be reached.
    """
    from edge.remote.deploy import deploy as deploy_to

    return deploy_to(
        Path(artifact), host, runtime, offline, lambda text: on_progress(ProgressEvent(text=text, total=1))
    )


def open_llm(model: str | Path, options: LoadOptions | None = None, *, runtime: str | None = None) -> WorkerSession:
    """Load a language model in a separate process; the result is a context manager that tokenizes and generates.

    `model` is a GGUF file, an artifact in that format, or the address of a server that has loaded the model.
    """
    from edge.llm.loading import LlmSource, is_address, model_file
    from runtimes.llm.session import LoadOptions

    source = str(model)
    if is_address(source):
        return LlmSource(source=source, runtime=runtime or "llama_server", options=options or LoadOptions()).open()
    return LlmSource(source=model_file(source), runtime=runtime, options=options or LoadOptions()).open()


def _board(host: str, offline: bool, on_progress: OnProgress) -> Board:
    from edge.remote.board import Board

    board = Board(host, offline=offline, note=lambda text: on_progress(ProgressEvent(text=text, total=1)))
    board.connect()
    return board
