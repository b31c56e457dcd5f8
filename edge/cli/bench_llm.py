"""`edge bench MODEL.gguf`: the speed of a language model here, and how close it is to the machine's limit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from edge.benchmark.bill import BillOptions

_ROUNDS = 1  # each test is already repeated within the process
# The options for language models, and those that do not apply to them, by argument name.
_COUNTS = ("prompt_tokens", "gen_tokens", "repeats")
_BILL = ("price_kwh", "watts", "prices")
_OWN = (*_COUNTS, "context", "memory", "kv_type", "workers", "bill", *_BILL)
_NOT_FOR_TEXT = (
    *(
        "protocol",
        "device",
        "runs",
        "seconds",
        "input",
        "shape",
        "batch",
        "throughput",
        "profile",
        "compare",
        "fail_above",
    ),
    *("on", "browser", "offline", "energy_csv", "preprocess", "mean", "scale", "layout", "color", "resize"),
)

_DEFAULTS = {"protocol": "steady", "device": "cpu"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge bench` for language models."""
    from edge.cli.options.numbers import count, non_negative

    group = parser.add_argument_group("language models (.gguf), as llama-bench measures them")
    group.add_argument(
        "--prompt-tokens",
        type=_tokens,
        metavar="N",
        help="length of the prompt; 0 skips the test (default: 512, or what fits)",
    )
    group.add_argument(
        "--gen-tokens", type=_tokens, metavar="N", help="number of tokens to generate; 0 skips the test (default: 128)"
    )
    group.add_argument("--repeats", type=count, metavar="N", help="repetitions of each test (default: 5)")
    group.add_argument("--context", type=count, metavar="N", help="tokens of context (default: what the tests need)")
    group.add_argument(
        "--memory", choices=("auto", "map", "read"), help="memory-map the weights or read them (default: auto)"
    )
    group.add_argument("--kv-type", choices=("f16", "q8_0", "q4_0", "f32"), help="type of the KV cache")
    group.add_argument(
        "--bill",
        action="store_true",
        default=None,
        help="also the cost of summarizing 100 e-mails (400 tokens in, 200 out), here and with hosted models",
    )
    group.add_argument(
        "--price-kwh", type=non_negative, metavar="USD", help="with --bill: price of a kWh (default: 0.30)"
    )
    group.add_argument(
        "--watts", type=non_negative, metavar="W", help="with --bill: power of this machine (default: as measured)"
    )
    group.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="with --bill: current prices, a CSV file with model, prompt_usd_per_1k, completion_usd_per_1k",
    )
    group.add_argument("--workers", metavar="HOST:PORT,…", help="RPC workers that run a share of the layers")


def is_asked(args: argparse.Namespace) -> bool:
    """Return whether the models are language models. Raises UsageError for options of the other kind of models."""
    from edge.benchmark.runner import are_language_models

    own = [f"--{name.replace('_', '-')}" for name in _OWN if getattr(args, name) is not None]
    if not are_language_models(args.artifacts):
        if own:
            raise UsageError(f"{own[0]} is for language models", "give a .gguf file, or leave it out")
        return False
    given = (name for name in _NOT_FOR_TEXT if not _is_default(name, vars(args)[name]))
    unsupported = next(given, None)
    if unsupported is not None:
        raise UsageError(
            f"--{unsupported.replace('_', '-')} does not apply to language models",
            "leave it out; `edge bench --help` lists their own options in a group",
        )
    return True


def _is_default(name: str, value: object) -> bool:
    """Return whether an option was left out; 0 is a value, as in `--throughput` without a number."""
    return value is None or value is False or value in ([], _DEFAULTS.get(name))


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0 if all setups were measured, else the exit status of the first error."""
    import edge
    from edge.benchmark.language_model import TextRow
    from edge.benchmark.language_model_report import as_csv, as_markdown, as_text
    from edge.benchmark.report import as_json
    from edge.cli.bench_common import html_page, measure, out_format, settings_of, status_of, write
    from edge.console.text import width

    written_as = out_format(args)
    options = edge.LlmBenchOptions(
        **{name: getattr(args, name) for name in (*_COUNTS, "context", "memory", "kv_type")},
        workers=tuple(args.workers.split(",") if args.workers else ()),
        settings=settings_of(args.set),
        runtime=args.runtime,
        threads=tuple(args.threads or ()),
        rounds=args.rounds or _ROUNDS,
        timeout_s=args.timeout,
        bill=_bill_options(args),
    )
    found = measure(args, options)
    rows = [row for row in found.rows if isinstance(row, TextRow)]
    texts = {
        "text": lambda: as_text(rows, found.findings, width()),
        "json": lambda: as_json(rows, found.findings),
        "csv": lambda: as_csv(rows),
        "markdown": lambda: as_markdown(rows, found.findings),
        "html": lambda: html_page(found.to_json(), args, "Benchmark"),
    }
    write(texts, written_as, args.out)
    return status_of(found)


def _bill_options(args: argparse.Namespace) -> BillOptions | None:
    """Return how the bill is made; None without --bill. Raises UsageError for options that contradict it."""
    from edge.benchmark.bill import BillOptions

    if not args.bill:
        alone = next((name for name in _BILL if getattr(args, name) is not None), None)
        if alone is not None:
            raise UsageError(f"--{alone.replace('_', '-')} is for the bill", "add --bill, or leave it out")
        return None
    skipped = next((name for name in ("prompt_tokens", "gen_tokens") if getattr(args, name) == 0), None)
    if skipped is not None:
        raise UsageError(f"--{skipped.replace('_', '-')} 0 skips a test that the bill is computed from", "leave it out")
    return BillOptions(price_kwh=args.price_kwh, watts=args.watts, prices=args.prices)


def _tokens(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of tokens")
    return number
