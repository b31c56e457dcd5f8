"""`edge history`: the measurements that were kept: list, show and export them, or remove old ones."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from edge.benchmark.history import Entry
    from edge.benchmark.tables import Column

_DAY_S = 86400.0
# Action → the arguments that it does not ignore.
_TAKEN = {
    "list": ("--setup", "--last"),
    "show": ("ID", "--setup", "--last"),
    "export": ("ID", "--setup", "--last", "--out"),
    "prune": ("--keep", "--days"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge history`."""
    from edge.cli.options.numbers import count

    parser.add_argument(
        "action",
        choices=("list", "show", "export", "prune"),
        help="list: one line each; show: as edge bench prints them; export: JSON with every sample; prune: remove",
    )
    parser.add_argument(
        "ids", nargs="*", type=count, metavar="ID", help="show, export: the measurements (default: all)"
    )
    parser.add_argument("--setup", metavar="TEXT", help="only those whose setup contains this text")
    parser.add_argument("--last", type=count, metavar="N", help="only the last N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="export: write to this file")
    parser.add_argument("--keep", type=count, metavar="N", help="prune: all but the last N")
    parser.add_argument("--days", type=count, metavar="N", help="prune: what is older than N days")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the action. Returns 0."""
    from edge.benchmark import history

    _check(args)
    if args.action == "prune":
        before = None if args.days is None else time.time() - args.days * _DAY_S
        removed = history.prune(before, args.keep)
        print(json.dumps({"removed": removed}) if args.json else f"measurements removed: {removed}")
        return 0
    found = history.entries(args.setup, args.last)
    if args.action == "list":
        print(json.dumps([one.to_json() for one in found], indent=2, ensure_ascii=False) if args.json else _list(found))
        return 0
    rows = history.rows(args.ids or [one.id for one in found])
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    document = "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
    if args.action == "export" and args.out is not None:
        args.out.write_text(document + "\n", encoding="utf-8")
        print(f"{args.out} has {len(rows)} measurement{'s' if len(rows) != 1 else ''}")
    else:
        print(document if args.action == "export" or args.json else _show(document))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UsageError for arguments that the action would ignore."""
    named = {
        "ID": bool(args.ids),
        "--setup": args.setup is not None,
        "--last": args.last is not None,
        "--out": args.out is not None,
        "--keep": args.keep is not None,
        "--days": args.days is not None,
    }
    ignored = next((name for name, is_given in named.items() if is_given and name not in _TAKEN[args.action]), None)
    if ignored is not None:
        hint = f"it takes {', '.join(_TAKEN[args.action])} and --json; see `edge history --help`"
        raise UsageError(f"edge history {args.action} does not take {ignored}", hint)
    if args.ids and (args.setup is not None or args.last is not None):
        raise UsageError("an ID names one measurement, --setup and --last choose among all", "give one or the other")
    if args.action == "prune" and (args.keep is None) == (args.days is None):
        raise UsageError("prune takes --keep or --days", "edge history prune --days 365")


def _list(found: list[Entry]) -> str:
    from edge.benchmark.tables import format_aligned
    from edge.console.text import width

    return (
        format_aligned(_columns(), found, width())
        or "nothing was measured yet, or the history was moved: see EDGE_HISTORY"
    )


def _columns() -> list[Column[Entry]]:
    from edge.benchmark.tables import NONE, Column

    return [
        Column("Id", lambda one: str(one.id)),
        Column("When", lambda one: time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at)), is_number=False),
        Column("Setup", lambda one: one.setup, is_number=False),
        Column("Host", lambda one: one.host or NONE, is_number=False),
        Column("Engine", lambda one: f"{one.runtime} {one.runtime_version or ''}".strip(), is_number=False),
        Column("Precision", lambda one: one.precision or NONE, is_number=False),
        Column("Median [ms]", lambda one: NONE if one.median_ms is None else f"{one.median_ms:.4g}"),
        Column("Model", lambda one: (one.model_sha256 or NONE)[:8], is_number=False),
        Column("edge", lambda one: one.edge_version or NONE, is_number=False),
    ]


def _show(document: str) -> str:
    from edge.benchmark.report import as_text
    from edge.benchmark.rows import Row
    from edge.console.text import width
    from runtimes.artifact.json_fields import Fields

    rows = [Row.from_json(Fields(row, "the history", f"[{place}]")) for place, row in enumerate(json.loads(document))]
    return as_text(rows, width=width())
