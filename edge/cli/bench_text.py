"""`edge bench MODEL.gguf`: how fast a language model reads and writes here, and how near to the machine's ceiling."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError, UsageError, from_dict

if TYPE_CHECKING:
    from edge.bench.text import TextSetup

_PROMPT, _GENERATED = 512, 128  # tokens, as llama-bench has them
_BESIDE = 2  # tokens of context that a test needs beside its own
_ROUNDS = 1  # reading and writing are repeated within the process already
# Options of `edge bench` that mean nothing to a language model, by their names in the arguments.
_COUNTS = ("prompt_tokens", "gen_tokens", "repeats")
_OWN = (*_COUNTS, "context", "memory", "kv_type", "workers")
_NOT_FOR_TEXT = ("runs", "seconds", "input", "compare", "preprocess", "on")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `edge bench` takes for language models."""
    from edge.arguments import count

    group = parser.add_argument_group("language models (.gguf), as llama-bench measures them")
    group.add_argument(
        "--prompt-tokens", type=_tokens, metavar="N", help="length of the prompt to read (512, or what fits; 0: none)"
    )
    group.add_argument("--gen-tokens", type=_tokens, metavar="N", help="how many tokens to generate (128; 0: none)")
    group.add_argument("--repeats", type=count, metavar="N", help="repetitions of each test (5)")
    group.add_argument("--context", type=count, metavar="N", help="tokens of context (what the tests need)")
    group.add_argument("--memory", choices=("auto", "map", "read"), help="how the weights are held (auto)")
    group.add_argument("--kv-type", choices=("f16", "q8_0", "q4_0", "f32"), help="type of the cache of keys and values")
    group.add_argument("--workers", metavar="HOST:PORT,…", help="RPC workers that take a share of the layers")


def is_asked(args: argparse.Namespace) -> bool:
    """Whether language models are to be measured; UsageError for a mixture with other models, or their options."""
    from runtimes.artifact import Artifact

    formats = {Artifact.open(path).manifest.format for path in args.artifacts}
    own = [f"--{name.replace('_', '-')}" for name in _OWN if getattr(args, name) is not None]
    if "gguf" not in formats:
        if own:
            raise UsageError(f"{own[0]} is for language models", "give a .gguf file, or leave it out")
        return False
    if len(formats) > 1:
        raise UsageError("language models and others are measured in different ways", "measure them in two commands")
    given = [f"--{name}" for name in _NOT_FOR_TEXT if getattr(args, name, None)]
    if given:
        raise UsageError(f"{given[0]} has no meaning for language models", "see the last part of `edge bench --help`")
    return True


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when all setups were measured, else the status of the first one's error."""
    from edge.bench import findings
    from edge.bench.report import as_json
    from edge.bench.text import text_rows
    from edge.bench.text_report import as_csv, as_markdown, as_text
    from edge.cli.bench import STOPPED, measure, out_format, write
    from edge.terminal import width

    written_as = out_format(args)
    measurements, was_stopped = measure(list(_setups(args)), args.rounds or _ROUNDS, args)
    rows = text_rows(measurements)
    found = findings(rows)
    texts = {
        "text": lambda: as_text(rows, found, width()),
        "json": lambda: as_json(rows, found),
        "csv": lambda: as_csv(rows),
        "markdown": lambda: as_markdown(rows, found),
    }
    write(texts, written_as, args.out)
    if was_stopped:
        print(f"edge: stopped; {len(measurements)} measurements were finished", file=sys.stderr)
        return STOPPED
    return next((from_dict(row).exit_code for row in rows if row["status"] != "ok"), 0)


def _setups(args: argparse.Namespace) -> Iterator[TextSetup]:
    from edge.bench.text import TextSetup
    from edge.cli.bench import settings_of, short_name

    settings = settings_of(args.set)
    for path in args.artifacts:
        model = _model(path)
        counts = _counts(args, model)
        for threads in args.threads or [None]:
            load = _load(args, threads, counts, settings)
            name = short_name(path, args.artifacts)
            title = ", ".join(filter(None, [name, f"{threads} threads" if threads else "", args.memory or ""]))
            yield TextSetup(
                id=f"{title}, {args.runtime or 'gguf'}",
                title=title,
                artifact=model,
                runtime=args.runtime,
                load=load,
                **counts,
            )


def _counts(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """The sizes of the tests: those that were asked for, else the usual ones, or the longest that the context holds."""
    most = (args.context or _trained(model)) - _BESIDE
    counts: dict[str, Any] = {"prompt_tokens": min(_PROMPT, most), "gen_tokens": min(_GENERATED, most)}
    return counts | {key: value for key in _COUNTS if (value := getattr(args, key)) is not None}


def _trained(model: Path) -> int:
    """The context that a model was trained for; a file that cannot be read is told of by its measurement."""
    from runtimes.gguf_file import read_gguf
    from runtimes.llama.memory import trained_context

    try:
        return trained_context(read_gguf(model))
    except InputError:
        return _PROMPT + _BESIDE


def _load(
    args: argparse.Namespace, threads: int | None, counts: dict[str, int], settings: dict[str, str]
) -> dict[str, Any]:
    """LoadOptions by name. The context is what the tests need, as llama-bench chooses it: a longer one only costs."""
    needed = max(counts["prompt_tokens"], counts["gen_tokens"]) + _BESIDE
    given = {
        "context": args.context or max(needed, 64),
        "threads": threads,
        "batch_threads": threads,
        "memory": args.memory,
        "kv_type": args.kv_type,
        "settings": dict(settings),
        "workers": args.workers.split(",") if args.workers else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _model(path: Path) -> Path:
    """The model file of an artifact folder, or the file itself."""
    from runtimes.artifact import Artifact

    return Artifact.open(path).model


def _tokens(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of tokens")
    return number
