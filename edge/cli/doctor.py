"""`edge doctor`: what is missing or wrong on this machine, and the command that mends it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.doctor import Finding

_PLURALS = {"error": "errors", "warning": "warnings", "note": "notes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which machine, and how to print."""
    parser.add_argument("--on", metavar="HOST", help="a board, over ssh; this machine without it")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.epilog = "Exit status: 0 when nothing is broken (warnings are not breakage), 7 when something is."


def run(args: argparse.Namespace) -> int:
    """Print all findings; 7, the host's exit status, when one of them is an error."""
    from edge.doctor import is_broken
    from runtimes.errors import HostError

    findings = _findings(args.on)
    print(json.dumps([one.as_dict() for one in findings], indent=2) if args.json else as_text(findings))
    return HostError.exit_code if is_broken(findings) else 0


def _findings(host: str | None) -> list[Finding]:
    from edge.doctor import examine, examine_board, observe, of_board

    if host is None:
        return examine(observe())
    from edge.remote.look import look

    return examine_board(of_board(look(host)))


def as_text(findings: Sequence[Finding]) -> str:
    """One block per finding: the level and what was found, then why it matters and what mends it."""
    width = max((len(one.level) for one in findings), default=0)
    blocks = [_block(one, width) for one in findings]
    return "\n".join([*blocks, "", _summary(findings)])


def _block(finding: Finding, width: int) -> str:
    indent = " " * (width + 2)
    lines = [f"{finding.level:<{width}}  {finding.what}"]
    lines += [f"{indent}{label}{text}" for label, text in (("", finding.why), ("→ ", finding.fix)) if text]
    return "\n".join(lines)


def _summary(findings: Sequence[Finding]) -> str:
    counts: Counter[str] = Counter(one.level for one in findings)
    words = [f"{counts[one]} {one if counts[one] == 1 else many}" for one, many in _PLURALS.items() if counts[one]]
    return ", ".join(words) if words else "nothing is missing and nothing is wrong"
