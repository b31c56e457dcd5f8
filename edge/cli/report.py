"""`edge report`: one HTML file with the results of other commands: tables, figures, proofs, and how each was made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from runtimes.errors import InputError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge report`."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="an artifact, or the --json of bench, table, evaluate, convert or estimate (default: the published table "
        "and the newest measurements of the history)",
    )
    parser.add_argument("--history", action="store_true", help="also show the history: each model over time")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="report.html by default")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw the latencies as a picture, for a README")
    parser.add_argument("--browser", metavar="PATH", help="with --png: the program of Chromium or Chrome")
    parser.add_argument("--title", default="Measurements", metavar="TEXT", help="the title of the page")
    parser.add_argument("--json", action="store_true", help="print JSON: the file, its size, its sections")


def run(args: argparse.Namespace) -> int:
    """Write the report. Returns 0."""
    import edge
    from edge.web.chromium import draw

    if args.out.resolve() in {path.resolve() for path in args.files}:
        raise UsageError(f"{args.out} would be overwritten", "write the report to another file with --out")
    for path in filter(None, (args.out, args.png)):
        if not path.resolve().parent.is_dir():
            raise InputError(f"{path.parent} is not a folder", "choose a folder that exists")
    found = edge.report(args.files, history=args.history, title=args.title)
    args.out.write_text(found.html, encoding="utf-8")
    if args.png is not None:
        if found.picture is None:
            raise UsageError("there is no latency to draw", "name the --json of edge bench or edge table")
        draw(*found.picture, args.png, args.browser)
    if args.json:
        answer = {"file": str(args.out), "png": str(args.png) if args.png else None, **found.to_json()}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print(f"{args.out} ({args.out.stat().st_size / 1000:,.0f} kB) opens in any browser")
    return 0
