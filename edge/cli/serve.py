"""`edge serve`: serve a language model over OpenAI's HTTP API, with a chat page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.llm.loading import LlmSource
    from edge.serve.listening import Key
    from edge.serve.served_model import ServedModel
    from edge.serve.server import Ready, ServeOptions
    from runtimes.artifact.json_fields import JsonObject

_EPILOG = """
Arguments after -- are passed to llama-server unchanged: edge serve MODEL -- --embeddings, or -- --verbose.

The server is llama.cpp's own: compiled by `make llama` for this CPU, else from the wheel of xllamacpp, which processes
prompts at 0.63 and generates at 0.97 of that speed (choose with --runtime llama_cpp or xllamacpp); or --server URL.
"""
_SLOT_BYTES = 4 << 30  # free memory per additional slot
_FEWEST_SLOTS, _MAX_SLOTS = 2, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge serve`."""
    from edge.cli.options import llm_loading
    from edge.cli.options.numbers import count, port

    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a .gguf file, or an artifact's folder")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0: all networks (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=port, default=8080, metavar="N", help="port; 0: any free one (default: 8080)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the key; or EDGE_API_KEY")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="allow pages of this origin, or '*'"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name of this machine that clients may use"
    )
    parser.add_argument(
        "--slots", type=count, metavar="N", help="simultaneous answers, up to 128 (default: 2 to 4, by memory)"
    )
    parser.add_argument(
        "--queue", type=_queue, default=32, metavar="N", help="requests that may wait for a slot (default: 32)"
    )
    parser.add_argument(
        "--template", metavar="NAME", help="a named chat template, or a file (default: the model's own)"
    )
    parser.add_argument("--name", metavar="WORD", help="the model's name for clients (default: its file's name)")
    parser.add_argument(
        "--page",
        choices=("edge", "llama"),
        default="edge",
        help="the chat page; llama: llama-server's (default: edge)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log requests")
    parser.add_argument("--json", action="store_true", help="print the address as JSON once it answers")
    llm_loading.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C."""
    from edge.cli.options.llm_loading import llm_source_from
    from edge.serve.listening import choose_key
    from edge.serve.server import ServeOptions, serve

    model = llm_source_from(args)
    model = model if model.is_served else model.with_slots(args.slots or _slots(model.source))
    options = ServeOptions(
        name=args.name,
        host=args.host,
        port=args.port,
        queue=args.queue,
        key=choose_key(args.host, args.api_key_file, is_upstreams=model.is_served),
        origins=tuple(args.allow_origin),
        hosts=tuple(name.lower() for name in args.allow_host),
        quiet=args.quiet,
        page=args.page,
    )
    serve(_opener(model, args), options, lambda ready: _print_ready(ready, options, args.json))
    return 0


def _opener(model: LlmSource, args: argparse.Namespace) -> Callable[[], ServedModel]:
    def opener() -> ServedModel:
        from edge.serve.served_model import local_model, remote_model

        doing = "reaching" if model.is_served else "loading"
        print(f"edge: {doing} {model.name} ...", file=sys.stderr, flush=True)
        if model.is_served:
            return remote_model(model, args.template, args.passed_on)
        return local_model(model, args.template, args.passed_on, args.name)

    return opener


def _slots(model: str) -> int:
    """Choose the number of slots by the memory that the model leaves free."""
    from runtimes import host

    path = Path(model)
    size = path.stat().st_size if path.is_file() else 0
    spare = (host.facts()["memory"]["available_bytes"] or 0) - size
    return min(max(spare // _SLOT_BYTES, _FEWEST_SLOTS), _MAX_SLOTS)


def _print_ready(ready: Ready, options: ServeOptions, as_json: bool) -> None:
    """Print the address of the server on stdout."""
    from edge.console.text import print_code

    if as_json:
        print(json.dumps(_as_dict(ready, options)), flush=True)
        return
    for note in ready.notes:
        print(f"edge: {note}", file=sys.stderr)
    facts = ready.facts
    print(f"{facts.name} ({facts.quantization}, context {facts.context}, {facts.slots} slots)")
    print(f"  chat      {_link(ready, options.key)}")
    print(f"  API       {ready.address}/v1")
    if options.key is not None:
        print(f"  API key   {options.key.value if options.key.is_new else 'as passed'}")
        print_code(f"{ready.address}/#key={options.key.value}")
    print("  Ctrl+C stops it", flush=True)


def _link(ready: Ready, key: Key | None) -> str:
    """Return the link of the page; a new key is in its fragment, which browsers do not send."""
    return f"{ready.address}/#key={key.value}" if key is not None and key.is_new else ready.address


def _as_dict(ready: Ready, options: ServeOptions) -> JsonObject:
    return {
        "address": ready.address,
        "api": f"{ready.address}/v1",
        "model": ready.facts.name,
        "key": _new_key(options.key),
        "link": _link(ready, options.key),
        "context": ready.facts.context,
        "slots": ready.facts.slots,
        "notes": list(ready.notes),
    }


def _new_key(key: Key | None) -> str | None:
    return key.value if key is not None and key.is_new else None


def _queue(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)
