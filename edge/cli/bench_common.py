"""The parts of `edge bench` shared by all models: measuring with progress, common options, and output."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import InputError, UsageError

if TYPE_CHECKING:
    from edge.benchmark.language_model import LlmBenchOptions
    from edge.benchmark.runner import BenchOptions, BenchReport
    from runtimes.errors import JsonObject

_FORMATS = {".json": "json", ".csv": "csv", ".md": "markdown", ".html": "html"}
_STOPPED = 130  # the shell's status of a program ended by Ctrl+C


def measure(args: argparse.Namespace, options: BenchOptions | LlmBenchOptions) -> BenchReport:
    """Measure with a progress bar, keep the rows in the history, and return the report."""
    import edge
    from edge.console.progress import ProgressBar

    with ProgressBar(1, "measuring", quiet=args.json) as bar:
        return edge.bench(
            args.artifacts, options, compare=args.compare, history=not args.no_history, on_progress=bar.show
        )


def status_of(report: BenchReport) -> int:
    """Return the exit status: 0 if all setups were measured, else that of the first error."""
    if report.was_stopped:
        print(f"edge: stopped; {report.measured} measurements were finished", file=sys.stderr)
        return _STOPPED
    return next((row.exit_code for row in report.rows if not row.is_ok), 0)


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """Parse the engine settings of `--set NAME=VALUE`."""
    settings = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not name or not separator:
            raise UsageError(f"--set takes NAME=VALUE, not '{word}'", "for example: --set int8=fast")
        settings[name] = value
    return settings


def out_format(args: argparse.Namespace) -> str:
    """Return the output format: from the flag, else from the suffix of --out, else text."""
    chosen = next((word for word in _FORMATS.values() if getattr(args, word)), None)
    if args.out is None:
        return chosen or "text"
    if chosen is None and args.out.suffix not in _FORMATS:
        raise UsageError(
            f"the format of {args.out} is unknown",
            "name it .json, .csv, .md or .html, or add --json, --csv, --markdown or --html",
        )
    if not args.out.resolve().parent.is_dir():
        raise InputError(f"{args.out.parent} is not a folder", "choose a folder that exists")
    return chosen or _FORMATS[args.out.suffix]


def html_page(rows: Sequence[JsonObject], args: argparse.Namespace, title: str, notes: Sequence[str] = ()) -> str:
    """Return the page of the rows of `edge bench --json` or `edge table --json`, without the newline at its end."""
    from edge.reporting.documents import content_of_rows
    from edge.reporting.report import lay_out_report

    return lay_out_report(content_of_rows(rows, notes), title, shlex.join(["edge", *args.words])).html.rstrip("\n")


def write(texts: Mapping[str, Callable[[], str]], written_as: str, out: Path | None) -> None:
    """Print the requested format; with --out, write it to that file and print the text."""
    if out is None:
        print(texts[written_as]())
        return
    out.write_text(texts[written_as]() + "\n", encoding="utf-8")
    print(texts["text"]())
