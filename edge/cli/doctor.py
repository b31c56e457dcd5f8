"""`edge doctor`: report what is missing or wrong on this machine, with the command that fixes it."""

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
    """Add the arguments of `edge doctor`."""
    parser.add_argument("--on", metavar="HOST", help="a board over ssh (default: this machine)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "Exit status: 0 if there are no errors (there may be warnings), otherwise 7."


def run(args: argparse.Namespace) -> int:
    """Print all findings. Returns 7, the exit status of HostError, if one of them is an error."""
    from edge.doctor import is_broken
    from runtimes.errors import HostError

    findings = _findings(args.on)
    print(json.dumps([one.as_dict() for one in findings], indent=2) if args.json else as_text(findings))
    return HostError.exit_code if is_broken(findings) else 0


def _findings(host: str | None) -> list[Finding]:
    from edge.doctor import examine, examine_board, observe, snapshot_of_board

    if host is None:
        return examine(observe())
    from edge.remote.facts import remote_facts

    return examine_board(snapshot_of_board(remote_facts(host)))


def as_text(findings: Sequence[Finding]) -> str:
    """Format one block per finding: the level and what was found, then why it matters and what fixes it."""
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
