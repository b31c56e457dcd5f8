"""`edge serve`: a language model behind OpenAI's HTTP interface, with a page to chat on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.serve.access import Key
    from edge.serve.server import Ready, ServeOptions
    from edge.text_loading import TextModel
    from runtimes.text import TextSession

_MOST_PORT = 65535
_SLOT_BYTES = 4 << 30  # spare memory for which one slot more is offered
_FEWEST_SLOTS, _MOST_SLOTS = 2, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `edge serve` takes."""
    from edge import text_loading
    from edge.arguments import count

    parser.add_argument("model", nargs="?", metavar="MODEL", help="a .gguf file, or an artifact's folder")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0: for others too (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="0: any that is free (8080)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the key; or EDGE_API_KEY")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="let this web page ask too, or '*'"
    )
    parser.add_argument("--slots", type=count, metavar="N", help="answers at the same time, to 128 (2 to 4, by memory)")
    parser.add_argument("--queue", type=_queue, default=32, metavar="N", help="requests that may wait for a slot (32)")
    parser.add_argument("--template", metavar="NAME", help="chat template: a known one, or a file; the model's own")
    parser.add_argument("--name", metavar="WORD", help="what clients call the model (its file's name)")
    parser.add_argument("--quiet", action="store_true", help="no line for each request")
    parser.add_argument("--json", action="store_true", help="print the address as JSON once it answers")
    text_loading.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C."""
    from edge.serve.access import choose_key
    from edge.serve.server import ServeOptions, serve
    from edge.text_loading import chosen

    model = chosen(args)
    model = model if model.is_served else model.with_slots(args.slots or _slots(model.source))
    options = ServeOptions(
        name=args.name or (None if model.is_served else model.name),
        host=args.host,
        port=args.port,
        queue=args.queue,
        key=choose_key(args.host, args.api_key_file, is_upstreams=model.is_served),
        origins=tuple(args.allow_origin),
        template=args.template,
        quiet=args.quiet,
    )
    serve(_opener(model), options, lambda ready: _tell(ready, options, args.json))
    return 0


def _opener(model: TextModel) -> Callable[[], TextSession]:
    def opener() -> TextSession:
        doing = "reaching" if model.is_served else "loading"
        print(f"edge: {doing} {model.name} ...", file=sys.stderr, flush=True)
        return model.open()

    return opener


def _slots(model: str) -> int:
    """As many as the memory that the model leaves free gives room for."""
    from runtimes import host

    path = Path(model)
    size = path.stat().st_size if path.is_file() else 0
    spare = (host.facts()["memory"]["available_bytes"] or 0) - size
    return min(max(spare // _SLOT_BYTES, _FEWEST_SLOTS), _MOST_SLOTS)


def _tell(ready: Ready, options: ServeOptions, as_json: bool) -> None:
    """Say where the server is, on stdout."""
    if as_json:
        print(json.dumps(_as_dict(ready, options)), flush=True)
        return
    for note in ready.notes:
        print(f"edge: {note}", file=sys.stderr)
    facts = ready.facts
    print(f"{ready.name} ({facts.quantization}, context {facts.context}, {facts.slots} slots)")
    print(f"  chat      {_link(ready, options.key)}")
    print(f"  API       {ready.address}/v1")
    if options.key is not None:
        print(f"  API key   {options.key.value if options.key.is_new else 'the one that you gave'}")
        _print_code(f"{ready.address}/#key={options.key.value}")
    print("  Ctrl+C ends it", flush=True)


def _link(ready: Ready, key: Key | None) -> str:
    """What opens the page; a new key goes with it, behind the # that browsers keep to themselves."""
    return f"{ready.address}/#key={key.value}" if key is not None and key.is_new else ready.address


def _as_dict(ready: Ready, options: ServeOptions) -> dict[str, object]:
    return {
        "address": ready.address,
        "api": f"{ready.address}/v1",
        "model": ready.name,
        "key": _shown(options.key),
        "link": _link(ready, options.key),
        "context": ready.facts.context,
        "slots": ready.facts.slots,
        "notes": list(ready.notes),
    }


def _shown(key: Key | None) -> str | None:
    return key.value if key is not None and key.is_new else None


def _print_code(link: str) -> None:
    """The link as a QR code, for a phone's camera, where somebody looks at a terminal."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    segno.make(link, error="l").terminal(compact=True)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > _MOST_PORT:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: 0 to {_MOST_PORT}")
    return int(text)


def _queue(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)
