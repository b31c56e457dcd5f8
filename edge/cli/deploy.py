"""`edge deploy`: copy an artifact to a board, and prove there that it answers as its source did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.remote.deploy import Deployment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge deploy`."""
    parser.add_argument("artifact", nargs="?", type=Path, metavar="ARTIFACT", help="an artifact folder")
    parser.add_argument("host", metavar="HOST", help="the board, as for ssh: pi@raspberrypi.local")
    parser.add_argument("--runtime", metavar="ID", help="the engine (default: the format's preferred one)")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="download the engine on this machine: the board needs no network and no pip",
    )
    parser.add_argument("--uninstall", action="store_true", help="remove everything that edge installed on the board")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "Everything is installed in ~/.edgeproof on the board. Repeating the command is quick and changes nothing."
    )


def run(args: argparse.Namespace) -> int:
    """Deploy or uninstall. Raises ProofError if the answers on the board are too far from the source's."""
    import edge
    from edge.console.progress import ProgressBar
    from edge.remote.deploy import uninstall

    if args.uninstall:
        removed = uninstall(args.host)
        print(
            json.dumps({"host": args.host, "removed": removed}) if args.json else _describe_removal(args.host, removed)
        )
        return 0
    if args.artifact is None:
        raise edge.UsageError("no artifact is specified", f"edge deploy ARTIFACT {args.host}")
    with ProgressBar(1, f"deploying to {args.host}", quiet=args.json) as bar:
        found = edge.deploy(args.artifact, args.host, runtime=args.runtime, offline=args.offline, on_progress=bar.show)
    print(json.dumps(found.to_json()) if args.json else as_text(found))
    if not found.verdict.passed:
        verdict = found.verdict
        where = f"{args.artifact} fails verification on {args.host} with {verdict.runtime} {verdict.runtime_version}"
        raise edge.ProofError(f"{where}: {verdict.message}", "try another engine with --runtime, or convert again")
    return 0


def as_text(found: Deployment) -> str:
    """Format the result as aligned lines: the board, the engine, the artifact, what was copied, and the verdict."""
    verdict = f"right ({found.verdict.message})" if found.verdict.passed else f"WRONG ({found.verdict.message})"
    rows = {
        "board": found.board,
        "engine": f"{found.verdict.runtime} {found.verdict.runtime_version}",
        "artifact": f"{found.host}:{found.artifact}",
        "new there": ", ".join(found.copied) or "nothing",
        "verdict": verdict,
    }
    from edge.console.text import printable

    width = max(map(len, rows))
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in rows.items())


def _describe_removal(host: str, removed: bool) -> str:
    return f"{host}: ~/.edgeproof is removed" if removed else f"{host}: edge is not installed there"
