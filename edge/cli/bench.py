"""`edge bench`: measure models, and print each setup's statistics, conditions and caveats.

Language models (.gguf) are measured as llama-bench does: see `edge.cli.bench_llm`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.bench_common import html_page, measure, out_format, settings_of, status_of, write
from runtimes.errors import SlowerError, UsageError

if TYPE_CHECKING:
    from edge.benchmark.runner import BenchReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge bench`."""
    from edge.cli import bench_llm
    from edge.cli.options import model_hints
    from edge.cli.options.numbers import add_meter, count, percent, seconds

    parser.add_argument("artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="artifact folder or model file")
    parser.add_argument(
        "--protocol",
        choices=("steady", "published"),
        default="steady",
        help="steady: until the median is known to ±1 %% (default); published: 1 warm-up, 1 s pause, 250 runs",
    )
    parser.add_argument("--runs", type=count, metavar="N", help="published: runs in the loop (default: 250)")
    parser.add_argument(
        "--seconds", type=seconds, metavar="S", help="steady: maximum duration in seconds (default: 30)"
    )
    parser.add_argument("--runtime", metavar="ID", help="the engine (default: the format's preferred one)")
    parser.add_argument("--threads", type=count, nargs="+", metavar="N", help="one setup for each number of threads")
    parser.add_argument("--device", default="cpu", metavar="D", help="the engine's name of the device (default: cpu)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one of the engine's settings")
    parser.add_argument(
        "--rounds",
        type=count,
        metavar="N",
        help="processes for each setup, interleaved (default: 2; language models 1; with --compare 5 or more)",
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="a picture, or an .npz of stacked inputs")
    model_hints.add_shapes(parser)
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="HOST",
        help="measure on this board, over ssh; may be repeated; browser: in a browser of this machine",
    )
    parser.add_argument("--browser", metavar="PATH", help="with --on browser: the program of Chromium or Chrome")
    parser.add_argument("--offline", action="store_true", help="with --on: copy the engine from this machine")
    add_meter(parser)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="report what is faster or slower than this artifact, measured alternately, or than in this .json file",
    )
    parser.add_argument(
        "--fail-above", type=percent, metavar="P%", help="end with status 9 if anything is slower by more, e.g. 5%%"
    )
    _add_besides(parser)
    parser.add_argument("--no-history", action="store_true", help="do not keep the rows for `edge history`")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=600.0,
        metavar="S",
        help="time limit of one process in seconds (default: 600)",
    )
    _add_output(parser)
    bench_llm.add_arguments(parser)
    model_hints.add_preprocessing(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON with every sample and statistic")
    output.add_argument("--csv", action="store_true", help="print CSV, one line per setup, in full precision")
    output.add_argument("--markdown", action="store_true", help="print a Markdown table")
    output.add_argument("--html", action="store_true", help="print an HTML page with figures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write .json, .csv, .md or .html to this file")


def _add_besides(parser: argparse.ArgumentParser) -> None:
    """Add the options that measure more than latency."""
    from edge.cli.options.numbers import count

    parser.add_argument(
        "--batch", type=count, nargs="+", metavar="N", help="one setup for each batch, for models whose batch is free"
    )
    parser.add_argument(
        "--throughput",
        type=count,
        nargs="?",
        const=0,
        metavar="STREAMS",
        help="also measure the inferences per second of several sessions side by side (default: one on each core)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also report the time of each operator (onnxruntime, litert, openvino, torch, tensorrt)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0 if all setups were measured, else the exit status of the first error."""
    import edge
    from edge.benchmark import report
    from edge.cli import bench_llm
    from edge.cli.options.model_hints import preprocess_options_from
    from edge.console.text import width

    if bench_llm.is_asked(args):
        return bench_llm.run(args)
    if args.fail_above is not None and args.compare is None:
        raise UsageError("--fail-above needs something to compare with", "add --compare OLD")
    written_as = out_format(args)
    options = edge.BenchOptions(
        protocol=args.protocol,
        runs=args.runs,
        seconds=args.seconds,
        runtime=args.runtime,
        threads=tuple(args.threads or ()),
        device=args.device,
        settings={**settings_of(args.set), **({"browser": args.browser} if args.browser else {})},
        rounds=args.rounds,
        input=args.input,
        shapes=tuple(args.shape),
        preprocess=preprocess_options_from(args),
        on=tuple(args.on),
        offline=args.offline,
        energy_csv=args.energy_csv,
        timeout_s=args.timeout,
        profile=args.profile,
        batches=tuple(args.batch or ()),
        streams=args.throughput,
    )
    found = measure(args, options)
    texts = {
        "text": lambda: report.as_text(found.rows, found.findings, found.comparisons, width(), found.ranking),
        "json": lambda: report.as_json(found.rows, found.findings, found.comparisons, found.ranking),
        "csv": lambda: report.as_csv(found.rows),
        "markdown": lambda: report.as_markdown(found.rows, found.findings, found.comparisons, found.ranking),
        "html": lambda: html_page(found.to_json(), args, "Benchmark"),
    }
    write(texts, written_as, args.out)
    _report_unmatched(found, args.compare)
    status = status_of(found)
    if not status and args.fail_above is not None:
        _fail_above(found, args.fail_above)
    return status


def _report_unmatched(found: BenchReport, older: Path) -> None:
    """Name the setups that the older run lacks, and those that it has."""
    if not found.unmatched:
        return
    from edge.benchmark.rows import read_rows

    there = ", ".join(f"'{row.setup}'" for row in read_rows(older) if row.samples_ms) or "none"
    for setup in found.unmatched:
        print(f"edge: {older} has no measurement of '{setup}'; it has: {there}", file=sys.stderr)


def _fail_above(found: BenchReport, limit: float) -> None:
    """Report what is not decided. Raises SlowerError if a setup is slower than its baseline by more than the limit."""
    from edge.benchmark.compare import DECIDED

    slower = [
        f"'{one.setup}' takes {one.ratio.value - 1:.1%} longer [{one.ratio.low - 1:+.1%}, {one.ratio.high - 1:+.1%}]"
        for one in found.slower_than(limit)
        if one.ratio is not None
    ]
    for one in found.comparisons:
        if one.verdict not in DECIDED:
            print(f"edge: '{one.setup}' is not decided: {one.verdict}", file=sys.stderr)
    if slower:
        allowed = f"{limit * 100:g}%"
        raise SlowerError(
            f"{'; '.join(slower)}", f"--fail-above allows {allowed}; the rows above show what else differs"
        )
