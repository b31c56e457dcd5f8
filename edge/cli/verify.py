"""`edge verify`: check that an artifact's files are unchanged, and that it answers here as its source did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.jobs import VerifyAnswer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge verify`."""
    from edge.cli.options.numbers import count

    parser.add_argument("artifact", type=Path, help="an artifact folder")
    parser.add_argument("--runtime", metavar="ID", help="the engine (default: the format's own)")
    parser.add_argument("--on", choices=["browser"], help="in a browser of this machine (edge convert --for browser)")
    parser.add_argument("--browser", metavar="PATH", help="with --on browser: the program of Chromium or Chrome")
    parser.add_argument(
        "--soak",
        type=count,
        default=0,
        metavar="N",
        help="inferences that must answer the same inputs alike (default: as many as 0.2 s allow, at least 3)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the verdict. Raises ProofError if the answers are too far from the source's."""
    import edge

    verdict = edge.verify(args.artifact, runtime=args.runtime, on=args.on, browser=args.browser, soak=args.soak)
    if args.json:
        print(json.dumps(verdict.to_json()))
    elif verdict.passed:
        runtime = f"{verdict.runtime} {verdict.runtime_version}"
        print(f"{args.artifact}: verified with {runtime} ({verdict.message}{_describe_soak(verdict)})")
    if not verdict.passed:
        where = f"{args.artifact} fails verification with {verdict.runtime} {verdict.runtime_version}"
        raise edge.ProofError(f"{where}: {verdict.message}", "try another engine with --runtime, or convert again")
    return 0


def _describe_soak(verdict: VerifyAnswer) -> str:
    """Return the number of inferences and the growth of memory, if there were enough to tell."""
    soak = verdict.soak
    if soak is None or soak.memory_growth_bytes is None:
        return ""
    return f"; {soak.inferences:,} inferences alike, memory grew by {max(0, soak.memory_growth_bytes) / 1e6:.2f} MB"
