"""`edge verify`: are an artifact's files as written, and does it answer here as its source did?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_TIMEOUT_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The artifact, and the engine to verify it with."""
    parser.add_argument("artifact", type=Path, help="an artifact folder")
    parser.add_argument("--runtime", metavar="ID", help="the engine (default: the format's own)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Print the verdict; ProofError when the answers are too far from the source's."""
    from runtimes.errors import ProofError

    verdict = verify(args.artifact, args.runtime)
    if args.json:
        print(json.dumps(verdict))
    elif verdict["passed"]:
        print(f"{args.artifact}: right with {verdict['runtime']} {verdict['runtime_version']} ({verdict['message']})")
    if not verdict["passed"]:
        where = f"{args.artifact} is wrong with {verdict['runtime']} {verdict['runtime_version']}"
        raise ProofError(f"{where}: {verdict['message']}", "try another engine with --runtime, or convert again")
    return 0


def verify(artifact: Path, runtime: str | None) -> dict[str, Any]:
    """The digests here, the self-check in a worker: {"passed", "runtime", "runtime_version", "metrics", "message"}."""
    from edge.workers import run_job
    from runtimes.artifact import Artifact
    from runtimes.errors import InputError

    opened = Artifact.open(artifact)
    if opened.is_bare:
        raise InputError(f"{artifact} is a bare model file: there is nothing to verify it by", "convert it first")
    opened.verify_digests()
    return run_job({"job": "verify", "artifact": str(opened.path), "runtime": runtime}, timeout_s=_TIMEOUT_S)
