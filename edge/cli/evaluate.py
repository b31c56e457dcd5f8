"""`edge evaluate`: the accuracy of models on labeled inputs, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import InputError

if TYPE_CHECKING:
    from edge.benchmark.tables import Column
    from edge.console.progress import ProgressEvent
    from edge.evaluation.report import EvaluatedModel, EvaluateReport
    from edge.evaluation.runner import EvaluateOptions

# Metric → its heading; others are shown by their key.
_TITLES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "map": "mAP",
    "map50": "mAP50",
    "map75": "mAP75",
    "miou": "mIoU",
    "f1": "F1",
}
_CONFUSIONS = 5
_STOPPED = 130  # the shell's status of a program ended by Ctrl+C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge evaluate`."""
    from edge.cli.options import model_hints
    from edge.cli.options.numbers import count, seconds, share

    parser.add_argument(
        "artifacts",
        type=Path,
        nargs="+",
        metavar="ARTIFACT",
        help="artifact folders or model files; first the baseline",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATASET",
        help="labeled inputs: a folder for each class, a CSV; COCO .json, YOLO .txt, VOC .xml; masks",
    )
    model_hints.add_task(parser)
    model_hints.add_output(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="evaluate on N of the inputs, evenly spaced")
    parser.add_argument(
        "--max-drop",
        type=share,
        metavar="D",
        help="fail if the first metric is lower than that of the first model by more",
    )
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="keep each input's result here, and continue from it if stopped"
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="spread the inputs over a Dask cluster, such as tcp://scheduler:8786 (default: this machine)",
    )
    parser.add_argument(
        "--confidence", type=share, metavar="C", help="lowest score of a box, 0 to 1 (default: nearly all boxes count)"
    )
    parser.add_argument("--iou", type=share, metavar="I", help="overlap from which two boxes are one object, 0 to 1")
    parser.add_argument("--runtime", metavar="ID", help="the engine; `edge devices` lists them")
    parser.add_argument("--threads", type=count, metavar="N", help="threads of the engine")
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="time limit for up to 64 pictures")
    model_hints.add_shapes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    model_hints.add_preprocessing(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report. Raises ProofError for a drop beyond --max-drop, and InputError for inputs that were skipped."""
    import edge
    from edge.console.progress import ProgressBar
    from edge.console.text import quantity, width
    from runtimes.errors import UsageError

    if args.max_drop is not None and len(args.artifacts) == 1:
        raise UsageError("--max-drop compares with the first model; there is only one", "name the baseline before it")
    last: list[ProgressEvent] = []

    def show(event: ProgressEvent) -> None:
        last[:] = [event]
        bar.show(event)

    try:
        with ProgressBar(1, "evaluating", quiet=args.json) as bar:
            report = edge.evaluate(args.artifacts, args.data, _options(args), on_progress=show)
    except KeyboardInterrupt:
        print(f"edge: {_describe_interrupt(last, args.journal)}", file=sys.stderr)
        return _STOPPED
    print(json.dumps(report.to_json(), indent=2) if args.json else as_text(report, width()))
    if args.max_drop is not None:
        report.check_drop(args.max_drop)
    if report.unreadable:
        count = quantity(report.count, "input")
        raise InputError(
            f"{report.unreadable} of {count} could not be read; the metrics are of the others",
            "repair or remove them: the first ones are named above",
        )
    return 0


def _options(args: argparse.Namespace) -> EvaluateOptions:
    from edge.cli.options.model_hints import model_hints_from
    from edge.evaluation.runner import EvaluateOptions

    return EvaluateOptions(
        hints=model_hints_from(args),
        runtime=args.runtime,
        threads=args.threads,
        shapes=tuple(args.shape),
        confidence=args.confidence,
        iou=args.iou,
        limit=args.limit,
        cluster=args.cluster,
        journal=args.journal,
        timeout_s=args.timeout,
    )


def _describe_interrupt(last: list[ProgressEvent], journal: Path | None) -> str:
    from edge.console.text import quantity

    done = f"stopped after about {last[0].done} of {quantity(last[0].total, 'input')}" if last else "stopped"
    if journal is None:
        return f"{done}; nothing is kept (--journal FILE keeps each result)"
    return f"{done}; {journal} keeps their results: the same command continues from there"


def as_text(report: EvaluateReport, width: int | None = None) -> str:
    """Format for a terminal: a row for each model, the most frequent confusions, and notes."""
    from edge.benchmark.tables import format_aligned
    from edge.console.text import printable, quantity, wrap

    head = f"{report.data}: {quantity(report.count, 'input')}, {report.task}"
    table = format_aligned(_columns(report), report.models, width)
    lines = [printable(line) for line in _notes(report)]
    return "\n\n".join(filter(None, (printable(head), table, "\n".join(wrap(line, width) for line in lines))))


def _columns(report: EvaluateReport) -> tuple[Column[EvaluatedModel], ...]:
    from edge.benchmark.tables import NONE, Column
    from edge.console.text import printable

    def metric(key: str) -> Column[EvaluatedModel]:
        return Column(_TITLES.get(key, key), lambda one: f"{one.metrics[key]:.4f}" if key in one.metrics else NONE)

    def interval(one: EvaluatedModel) -> str:
        found = one.differences[0].interval if one.differences else None
        return NONE if found is None else f"{found[0]:+.4f}…{found[1]:+.4f}"

    keys = dict.fromkeys(key for one in report.models for key in one.metrics)
    return (
        Column("Model", lambda one: printable(one.artifact), is_number=False),
        Column("Engine", lambda one: f"{one.runtime} {one.runtime_version}", is_number=False),
        *(metric(key) for key in keys),
        Column("Size [MB]", lambda one: f"{one.size_bytes / 1e6:.3g}"),
        Column("Latency [ms]", lambda one: f"{one.median_ms:.1f}"),
        Column("Difference", lambda one: f"{one.differences[0].value:+.4f}" if one.differences else NONE),
        Column("95 % interval", interval),
        Column("Verdict", lambda one: one.differences[0].verdict if one.differences else NONE, is_number=False),
    )


def _notes(report: EvaluateReport) -> Iterator[str]:
    from edge.console.text import quantity

    for one in report.models:
        if one.confusions:
            total = sum(found.times for found in one.confusions)
            unit = quantity(total, "pixel" if report.task == "segmentation" else "input")
            yield f"{one.artifact}: {unit} confused, most often"
            for label, predicted, count in one.confusions[:_CONFUSIONS]:
                yield f"  {count} of {report.name(label)} as {report.name(predicted)}"
    for line in dict.fromkeys(f"{one.artifact}: {note}" for one in report.models for note in one.notes):
        yield line
    for line in dict.fromkeys(f"assumed: {line}" for one in report.models for line in one.assumptions):
        yield line
    if len(report.models) > 1:
        yield "difference: from the first model, on the same inputs; an interval that contains 0 may be chance alone"
    yield "latency: the median inference while evaluating; `edge bench` measures it"
