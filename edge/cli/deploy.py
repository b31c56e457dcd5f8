"""`edge deploy`: bring an artifact to a board, and prove there that it answers as its source did."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What goes where."""
    parser.add_argument("artifact", nargs="?", type=Path, metavar="ARTIFACT", help="an artifact folder")
    parser.add_argument("host", metavar="HOST", help="the board, as ssh takes it: pi@raspberrypi.local")
    parser.add_argument("--runtime", metavar="ID", help="the engine; the format's preferred one without it")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="fetch the engine here: the board needs no network and no pip",
    )
    parser.add_argument("--uninstall", action="store_true", help="remove everything of ours from the board")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.epilog = "Everything lies in ~/.edgeproof there. Running it again changes nothing, and is quick."


def run(args: argparse.Namespace) -> int:
    """Deploy, or undo it; ProofError when the answers there are too far from the source's."""
    from edge.progress import Progress
    from edge.remote.deploy import deploy, uninstall
    from runtimes.errors import ProofError, UsageError

    if args.uninstall:
        removed = uninstall(args.host)
        print(json.dumps({"host": args.host, "removed": removed}) if args.json else _removed(args.host, removed))
        return 0
    if args.artifact is None:
        raise UsageError("which artifact?", f"edge deploy ARTIFACT {args.host}")
    with Progress(1, f"deploying to {args.host}", quiet=args.json) as bar:
        found = deploy(args.artifact, args.host, args.runtime, args.offline, bar.note)
    print(json.dumps(found) if args.json else as_text(found))
    if not found["passed"]:
        where = f"{args.artifact} is wrong on {args.host} with {found['runtime']} {found['runtime_version']}"
        raise ProofError(f"{where}: {found['message']}", "try another engine with --runtime, or convert again")
    return 0


def as_text(found: Mapping[str, Any]) -> str:
    """Four aligned lines: the board, the engine, where the artifact lies, and the verdict."""
    verdict = f"right ({found['message']})" if found["passed"] else f"WRONG ({found['message']})"
    rows = {
        "board": found["board"],
        "engine": f"{found['runtime']} {found['runtime_version']}",
        "artifact": f"{found['host']}:{found['artifact']}",
        "new there": ", ".join(found["copied"]) or "nothing",
        "verdict": verdict,
    }
    from edge.terminal import printable

    width = max(map(len, rows))
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in rows.items())


def _removed(host: str, removed: bool) -> str:
    return f"{host}: ~/.edgeproof is removed" if removed else f"{host}: nothing of ours is there"
