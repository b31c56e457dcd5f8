"""`edge bench`: measure models, print every setup's statistics, what made them and what to doubt.

Language models (.gguf) are measured as llama-bench does it: see `edge.cli.bench_text`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError, UsageError, from_dict

if TYPE_CHECKING:
    from edge.bench import Comparison, Finding, Measurement, Row, Setup
    from runtimes.artifact import Artifact

_FORMATS = {".json": "json", ".csv": "csv", ".md": "markdown"}
STOPPED = 130  # what shells say of a program that Ctrl+C ended
_ROUNDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `edge bench` takes."""
    from edge import preprocessing
    from edge.arguments import add_meter, count, seconds
    from edge.cli import bench_text

    parser.add_argument("artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="artifact folder or model file")
    parser.add_argument(
        "--protocol",
        choices=("steady", "published"),
        default="steady",
        help="steady: until the median is known to ±1 %% (default); published: 1 warm-up, 1 s pause, 250 runs",
    )
    parser.add_argument("--runs", type=count, metavar="N", help="published: runs in the loop (250)")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="steady: for so long at most (30)")
    parser.add_argument("--runtime", metavar="ID", help="engine; the format's preferred one without it")
    parser.add_argument("--threads", type=count, nargs="+", metavar="N", help="one setup for each number of threads")
    parser.add_argument("--device", default="cpu", metavar="D", help="the engine's word for where to run (cpu)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one of the engine's settings")
    parser.add_argument(
        "--rounds", type=count, metavar="N", help="processes for each setup, interleaved (2; language models 1)"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="a picture, or an .npz of stacked inputs")
    parser.add_argument(
        "--on", action="append", default=[], metavar="HOST", help="measure on this board, over ssh; may be repeated"
    )
    parser.add_argument("--offline", action="store_true", help="with --on: bring the engine from here")
    add_meter(parser)
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what is faster or slower than then")
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="seconds for one process (600)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="every sample and statistic, for programs")
    output.add_argument("--csv", action="store_true", help="one line a setup, in full precision")
    output.add_argument("--markdown", action="store_true", help="a table for a README")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write .json, .csv or .md here, and print the text")
    bench_text.add_arguments(parser)
    preprocessing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when all setups were measured, else the status of the first one's error."""
    from edge.bench import compare, findings, read_rows, rows_of
    from edge.bench.compare import unmatched
    from edge.bench.energy import check_meter, metered
    from edge.cli import bench_text

    if bench_text.is_asked(args):
        if args.energy_csv:
            raise UsageError("--energy-csv is not read for language models", "measure them without it")
        return bench_text.run(args)
    written_as = out_format(args)
    old = read_rows(args.compare) if args.compare else []
    if args.energy_csv:
        check_meter(args.energy_csv, args.on)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        measurements, was_stopped = measure(_setups(args, Path(folder)), args.rounds or _ROUNDS, args)
    rows = rows_of(metered(measurements, args.energy_csv))
    found, compared = findings(rows), compare(rows, old)
    _print(rows, found, compared, args, written_as)
    for setup in unmatched(rows, old) if args.compare else []:
        print(f"edge: {args.compare} holds no measurement of '{setup}'", file=sys.stderr)
    if was_stopped:
        print(f"edge: stopped; {len(measurements)} measurements were finished", file=sys.stderr)
        return STOPPED
    return next((from_dict(row).exit_code for row in rows if row["status"] != "ok"), 0)


def measure(setups: Sequence[Setup], rounds: int, args: argparse.Namespace) -> tuple[list[Measurement], bool]:
    """The measurements that were finished, and whether Ctrl+C ended the rest."""
    from edge.progress import Progress

    done: list[Measurement] = []
    try:
        with Progress(len(setups) * rounds, "measuring", quiet=args.json) as bar:
            notes = _notes(bar.note)
            for measurement in _measurements(setups, rounds, args, notes):
                done.append(measurement)
                bar.advance(f"{measurement.setup.title}: {measurement.values['status']}")
    except KeyboardInterrupt:
        return done, True
    return done, False


def _notes(note: Callable[[str], None]) -> Callable[[Setup, int, str], None]:
    return lambda setup, number, phase: note(f"{setup.title}, round {number + 1}: {phase}")


def _measurements(
    setups: Sequence[Setup], rounds: int, args: argparse.Namespace, notes: Callable[[Setup, int, str], None]
) -> Iterator[Measurement]:
    from edge.bench import measure_all

    if not args.on:
        return measure_all(setups, rounds, args.timeout, notes)
    from edge.remote.jobs import boards_of, distinct, measure_on
    from edge.remote.kept import save

    by_host = {host: [setup for setup in setups if setup.host == host] for host in distinct(args.on)}
    return measure_on(boards_of(by_host, args.offline, notes), by_host, rounds, args.timeout, notes, save)


def _setups(args: argparse.Namespace, folder: Path) -> list[Setup]:
    from edge.bench import Setup
    from runtimes.artifact import Artifact

    settings, protocol = settings_of(args.set), _protocol(args)
    setups = []
    for place, path in enumerate(args.artifacts):
        artifact = Artifact.open(path)
        inputs, kind = _inputs(args, artifact, folder / f"{place}.npz")
        for host, threads in product(args.on or [None], args.threads or [None]):
            words = list(_words(short_name(path, args.artifacts), threads, args.device, settings))
            title = ", ".join([host, *words] if host else words)
            engine = _engine(artifact, args.runtime) if host is None else _engine_there(artifact, args.runtime)
            setups.append(
                Setup(
                    id=f"{title}, {engine}",
                    title=title,
                    artifact=path,
                    runtime=args.runtime,
                    options={"threads": threads, "device": args.device, "settings": settings},
                    protocol=protocol,
                    inputs=inputs,
                    input_kind=kind,
                    host=host,
                )
            )
    return setups


def _protocol(args: argparse.Namespace) -> dict[str, Any]:
    from runtimes.protocols import as_dict, protocol_of

    for option, value, belongs in (("--runs", args.runs, "published"), ("--seconds", args.seconds, "steady")):
        if value is not None and args.protocol != belongs:
            raise UsageError(f"{option} has no meaning in the protocol {args.protocol}", f"--protocol {belongs} has it")
    given = {"name": args.protocol, "runs": args.runs, "max_s": args.seconds}
    return as_dict(protocol_of({key: value for key, value in given.items() if value is not None}))


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """The engine settings of `--set NAME=VALUE`."""
    settings = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not name or not separator:
            raise UsageError(f"--set takes NAME=VALUE, not '{word}'", "for example: --set int8=fast")
        settings[name] = value
    return settings


def short_name(path: Path, paths: Sequence[Path]) -> str:
    """The file's or folder's own name, or the whole path where another has the same name."""
    name = path.resolve().name
    return name if sum(other.resolve().name == name for other in paths) == 1 else str(path)


def _words(name: str, threads: int | None, device: str, settings: Mapping[str, str]) -> Iterator[str]:
    yield name
    if threads is not None:
        yield f"{threads} thread{'s' * (threads > 1)}"
    if device != "cpu":
        yield device
    yield from (f"{key}={value}" for key, value in settings.items())


def _engine(artifact: Artifact, wanted: str | None) -> str:
    """The engine that the worker will take, as far as can be told without one; wrong words are refused here."""
    from runtimes.errors import EngineMissing
    from runtimes.registry import PREFERRED, for_format

    try:
        return for_format(artifact.manifest.format, wanted).id
    except EngineMissing:  # a row will say so
        return wanted or PREFERRED[artifact.manifest.format]


def _engine_there(artifact: Artifact, wanted: str | None) -> str:
    """The engine that a board will be given; what is installed here does not matter to it."""
    from runtimes.registry import PREFERRED, runtime

    if wanted is None:
        return PREFERRED[artifact.manifest.format]
    adapter = runtime(wanted)
    if artifact.manifest.format not in adapter.formats:
        hint = f"it opens: {', '.join(adapter.formats)}"
        raise UsageError(f"the engine '{wanted}' does not open the format '{artifact.manifest.format}'", hint)
    return adapter.id


def _inputs(args: argparse.Namespace, artifact: Artifact, target: Path) -> tuple[Path | None, str]:
    """The .npz to feed from and what it holds; none where the model's own inputs will do."""
    if args.input is None:
        return None, ""
    from edge.bench.inputs import stacked_inputs
    from edge.classify import Engine
    from edge.preprocessing import said

    engine = Engine(args.runtime, timeout_s=args.timeout)
    return stacked_inputs(args.input, artifact, said(args), engine, target)


def out_format(args: argparse.Namespace) -> str:
    """The word for what is written: the flag's, else the suffix's of --out, else text."""
    chosen = next((word for word in _FORMATS.values() if getattr(args, word)), None)
    if args.out is None:
        return chosen or "text"
    if chosen is None and args.out.suffix not in _FORMATS:
        raise UsageError(f"what is {args.out} to hold?", "name it .json, .csv or .md, or add --json, --csv, --markdown")
    if not args.out.resolve().parent.is_dir():
        raise InputError(f"{args.out.parent} is not a folder", "choose a folder that exists")
    return chosen or _FORMATS[args.out.suffix]


def _print(
    rows: Sequence[Row],
    found: Sequence[Finding],
    compared: Sequence[Comparison],
    args: argparse.Namespace,
    written_as: str,
) -> None:
    from edge.bench import report
    from edge.terminal import width

    texts = {
        "text": lambda: report.as_text(rows, found, compared, width()),
        "json": lambda: report.as_json(rows, found, compared),
        "csv": lambda: report.as_csv(rows),
        "markdown": lambda: report.as_markdown(rows, found, compared),
    }
    write(texts, written_as, args.out)


def write(texts: Mapping[str, Callable[[], str]], written_as: str, out: Path | None) -> None:
    """Print what was asked for; with --out write it there and print the text."""
    if out is None:
        print(texts[written_as]())
        return
    out.write_text(texts[written_as]() + "\n", encoding="utf-8")
    print(texts["text"]())
