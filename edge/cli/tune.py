"""`edge tune`: the fastest engine, number of threads, settings and precision for a model on a machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from edge.benchmark.tables import Column
    from edge.tuning.runner import TuneReport
    from edge.tuning.search import TuneTrial


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge tune`."""
    from edge.cli.options.numbers import count, seconds

    parser.add_argument(
        "artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="artifacts or model files, such as two precisions"
    )
    parser.add_argument(
        "--convert", action="store_true", help="also try other formats and precisions: convert and prove them first"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="DATA", help="with --convert: pictures or inputs of the real task, for int8"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --convert: keep the artifacts in this folder")
    parser.add_argument("--runtime", nargs="+", default=[], metavar="ID", help="only these engines (default: all)")
    parser.add_argument(
        "--threads", type=count, nargs="+", default=[], metavar="N", help="(default: 1, 2, 4, ... and all cores)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=0.6, metavar="S", help="time of one measurement of the fastest few (0.6)"
    )
    parser.add_argument("--on", metavar="HOST", help="tune for this board, over ssh")
    parser.add_argument("--offline", action="store_true", help="with --on: copy the engine from this machine")
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="seconds for one process (600)")
    parser.add_argument("--no-history", action="store_true", help="do not keep the winner's row for `edge history`")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Search and print. Returns 0."""
    import edge
    from edge.benchmark import history
    from edge.console.progress import ProgressBar
    from edge.console.text import width

    if args.calibration is not None and not args.convert:
        raise UsageError("--calibration is for conversions", "add --convert")
    options = edge.TuneOptions(
        runtimes=tuple(args.runtime),
        threads=tuple(args.threads),
        seconds=args.seconds,
        on=args.on,
        offline=args.offline,
        timeout_s=args.timeout,
    )
    with ProgressBar(1, "tuning", quiet=args.json) as bar:
        models = [*args.artifacts, *(_convert(args, bar.note) if args.convert else [])]
        found = edge.tune(models, options, on_progress=bar.show)
    if not args.no_history:
        history.record([found.winner])
    print(json.dumps(found.to_json(), ensure_ascii=False) if args.json else as_text(found, width()))
    return 0


def _convert(args: argparse.Namespace, note: Callable[[str], None]) -> list[Path]:
    from edge.tuning.conversions import convert_all

    found = []
    for model in args.artifacts:
        folder = args.out or Path(f"{model.stem}-tuned")
        for name, one in convert_all(model, folder, args.calibration, note):
            if isinstance(one, Path):
                found.append(one)
            else:
                print(f"edge: {name} is not tried: {one}", file=sys.stderr)
    return found


def as_text(report: TuneReport, width: int | None) -> str:
    """Format for a terminal: everything that was tried, the winner, and the command that measures it again."""
    from edge.benchmark.tables import format_aligned
    from edge.benchmark.warnings import findings
    from edge.console.text import wrap

    row = report.winner
    interval = "" if row.low_ms is None or row.high_ms is None else f" [{row.low_ms:.4g}, {row.high_ms:.4g}]"
    lines = [f"fastest: {row.title}, {row.median_ms:.4g} ms{interval}"]
    tied = [one.setup.title for one in report.trials if one.status == "tied"]
    if tied:
        lines.append(f"the rounds do not tell it apart from: {'; '.join(tied)}")
    if report.lead is not None:
        times = f"{report.lead.value:.2f}× [{report.lead.low:.2f}, {report.lead.high:.2f}]"
        lines.append(f"the next one that is slower takes {times} its time")
    lines.append(f"measure it again: {report.command}")
    lines.append(f"{len(report.trials)} ways were tried in {report.seconds:.0f} s")
    doubts = [f"{row.title if one.setup else 'this machine'}: {one.what} → {one.remedy}" for one in findings([row])]
    blocks = ["\n".join(wrap(line, width) for line in part) for part in (lines, doubts) if part]
    return "\n\n".join((format_aligned(_columns(), report.trials, width), *blocks))


def _columns() -> tuple[Column[TuneTrial], ...]:
    from edge.benchmark.tables import NONE, Column

    return (
        Column("Setup", lambda one: one.setup.title, is_number=False),
        Column("Median [ms]", lambda one: NONE if one.ms is None else f"{one.ms:.4g}"),
        Column("Looks", lambda one: str(one.looks)),
        Column("Result", lambda one: ": ".join(filter(None, (one.status, one.reason))), is_number=False),
    )
