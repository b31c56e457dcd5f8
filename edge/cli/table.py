"""`edge table`: print the MobileNetV2 table, with published rows next to this machine's."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.table.bundle import Bundle
    from edge.table.setups import AbsentSetup, TableSetup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge table`."""
    from edge.cli.options.numbers import add_meter, count, seconds

    parser.add_argument("--weights", type=Path, metavar="FILE", help="MobileNetV2 1.0/224 weights (.safetensors, .h5)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="the picture to classify")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="calibration pictures (not used for evaluation)"
    )
    parser.add_argument(
        "--runs", type=count, metavar="N", help="classifications in a loop (default: 250; 2 on an emulated board)"
    )
    parser.add_argument(
        "--rounds", type=count, metavar="N", help="loops of each setup (default: 2; 1 if all boards are emulated)"
    )
    parser.add_argument("--setup", action="append", metavar="ID", help="measure only this setup; may be repeated")
    parser.add_argument(
        "--on", action="append", default=[], metavar="HOST", help="measure on this board over ssh; may be repeated"
    )
    parser.add_argument("--offline", action="store_true", help="with --on: copy the engines from this machine")
    add_meter(parser)
    parser.add_argument(
        "--estimated", action="store_true", help="add an estimated row after each published one, where there is one"
    )
    parser.add_argument("--list", action="store_true", help="list the setups of this machine and exit")
    parser.add_argument("--how", metavar="SETUP", help="print the commands that reproduce a published row")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write everything that --from DIR needs on a board")
    parser.add_argument(
        "--from", type=Path, dest="bundle", metavar="DIR", help="measure from the folder that --export wrote"
    )
    parser.add_argument("--fetch-weights", action="store_true", help="download Keras' weights and exit")
    parser.add_argument(
        "--timeout", type=seconds, default=600, metavar="S", help="time limit of a setup (default: 600)"
    )
    parser.add_argument("--no-history", action="store_true", help="do not keep the rows for `edge history`")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON with every sample of every row")
    output.add_argument("--csv", action="store_true", help="print CSV, one line per row, in full precision")
    output.add_argument("--markdown", action="store_true", help="print a Markdown table (the default)")
    output.add_argument("--html", action="store_true", help="print an HTML page with figures")


def run(args: argparse.Namespace) -> int:
    """Print the table, or run the action of another option. Returns 0 if a setup was measured."""
    if args.how:
        print(_describe_reproduction(args.how))
        return 0
    if args.fetch_weights:
        print(_fetch_weights())
        return 0
    if args.list:
        print(_list(args.on, args.json))
        return 0
    return _table(args)


def _table(args: argparse.Namespace) -> int:
    from edge.benchmark import history
    from edge.benchmark.energy import check_meter
    from edge.cli.bench_common import html_page
    from edge.console.text import width, wrap
    from edge.table import report
    from edge.table.bundle import export
    from edge.table.estimates import with_estimates
    from edge.table.measure import TableOptions, choose, make_table
    from edge.table.recipes import BY_ID

    if args.export:
        print(f"{export(_bundle(args, list(BY_ID)), args.export)} is ready: copy it, then `edge table --from` it")
        return 0
    if args.energy_csv:
        check_meter(args.energy_csv, args.on)
    known, out_of_reach = _machines(args.on)
    setups = choose(known, args.setup)
    bundle = _bundle(args, [setup.artifact for setup in setups])
    plan = TableOptions(
        runs=args.runs,
        rounds=args.rounds,
        timeout_s=args.timeout,
        quiet=args.json,
        offline=args.offline,
        meter=args.energy_csv,
    )
    table = make_table(bundle, setups, plan, out_of_reach)
    rows = with_estimates(table.rows) if args.estimated else table.rows
    if not args.no_history:
        history.record([row.measured for row in table.rows if row.kind == "measured" and row.measured])
    if args.json:
        print(report.as_json(rows))
    elif args.csv:
        print(report.as_csv(rows))
    elif args.html:
        print(html_page([row.to_json() for row in rows], args, "MobileNetV2, one picture at a time", table.notes))
    else:
        print(report.as_markdown(rows, [wrap(note, width()) for note in table.notes]))
    return 130 if table.stopped else table.exit_code


def _bundle(args: argparse.Namespace, recipes: list[str]) -> Bundle:
    """Read the bundle of `--from`, or prepare one on this machine."""
    from edge.table.bundle import read
    from edge.table.prepare import ChosenFiles, prepare
    from runtimes.errors import UsageError

    wanted = ChosenFiles(weights=args.weights, picture=args.picture, calibration=args.calibration)
    if args.bundle is None:
        return prepare(wanted, recipes, quiet=args.json)
    if wanted != ChosenFiles():
        raise UsageError("--from has its own weights and pictures", "leave out --weights, --picture and --calibration")
    return read(args.bundle)


def _describe_reproduction(name: str) -> str:
    from edge.machine.this_machine import published_row

    return published_row(name).how.rstrip()


def _fetch_weights() -> str:
    from edge.table.mobilenet_v2 import download, find_weights

    weights = find_weights()
    if not weights.trained:
        print("downloading Keras' MobileNetV2 weights (14 MB) ...", file=sys.stderr)
        download()
        weights = find_weights()
    if weights.trained:
        return f"weights: {weights.path}"
    return "weights: not available here; the table will use seeded random weights and not evaluate answers"


def _machines(hosts: list[str]) -> tuple[list[TableSetup], list[AbsentSetup]]:
    """Return the setups that can be measured and those that cannot, on the boards of `--on` or else here."""
    from edge.remote.fleet import distinct
    from edge.table.measure import boards, this_machine

    return boards(distinct(hosts)) if hosts else this_machine()


def _list(hosts: list[str], as_json: bool) -> str:
    setups, absent = _machines(hosts)
    if as_json:
        known = [{"id": one.id, "setup": one.title, "needs": None} for one in setups]
        lacking = [{"id": one.id, "setup": one.title, "needs": one.needs} for one in absent]
        return json.dumps([*known, *lacking], indent=2, ensure_ascii=False)
    lines = [f"{setup.id:<28} {setup.title}" for setup in setups]
    return "\n".join([*lines, *(f"{what.id:<28} {what.title}: needs {what.needs}" for what in absent)])
