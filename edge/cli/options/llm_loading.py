"""The options of `edge chat` and `edge serve` for loading a language model, or for connecting to a server."""

from __future__ import annotations

import argparse
import math

from edge.llm.loading import LlmSource, find_encoder, is_address, model_file
from runtimes.errors import UsageError

# Options that a running server has fixed already.
_LOAD_OPTIONS = ("context", "slots", "threads", "memory", "kv_type", "lora", "workers", "mmproj")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for loading, and for a running server."""
    from edge.cli.options.numbers import count

    group = parser.add_argument_group("loading")
    group.add_argument("--context", type=count, metavar="N", help="tokens of each context (default: the model's)")
    group.add_argument("--threads", type=count, metavar="N", help="threads (default: physical performance cores)")
    group.add_argument(
        "--memory", choices=["auto", "map", "read"], help="memory-map the file or read it (default: auto)"
    )
    group.add_argument("--kv-type", choices=["f16", "q8_0", "q4_0", "f32"], help="type of the KV cache (default: f16)")
    group.add_argument(
        "--lora", action="append", metavar="FILE[=X]", help="a LoRA adapter in GGUF, with its strength (default: 1)"
    )
    group.add_argument(
        "--mmproj", metavar="FILE", help="the model's picture encoder (default: the one next to the model)"
    )
    group.add_argument("--workers", metavar="HOST:PORT,…", help="machines that run a share of the layers")
    group.add_argument("--server", metavar="URL", help="a running llama-server, instead of MODEL")
    group.add_argument("--runtime", metavar="ID", help="the engine; `edge devices` lists them")


def llm_source_from(args: argparse.Namespace) -> LlmSource:
    """Return the requested model.

    Raises UsageError for no model, for a model and a server, and for load options together with a server.
    """
    from runtimes.llm.session import LoadOptions

    source = _source(args.model, args.server)
    if is_address(source):
        load_options = [name for name in _LOAD_OPTIONS if vars(args).get(name) is not None]
        if load_options:
            flag = f"--{load_options[0].replace('_', '-')}"
            raise UsageError(f"{flag} cannot be set on a running server", f"leave {flag} out here")
        return LlmSource(source=source, runtime=args.runtime or "llama_server", options=LoadOptions())
    options = LoadOptions(
        context=args.context,
        threads=args.threads,
        memory=args.memory or "auto",
        kv_type=args.kv_type or "f16",
        adapters=dict(_adapter(text) for text in args.lora or []),
        mmproj=args.mmproj or find_encoder(source, args.runtime),
        workers=tuple(word for word in (args.workers or "").split(",") if word),
    )
    return LlmSource(source=source, runtime=args.runtime, options=options)


def _source(model: str | None, server: str | None) -> str:
    if model is not None and server is not None:
        raise UsageError("both a model and a server are specified", "pass one of the two")
    if server is not None:
        if "://" in server and not is_address(server):
            raise UsageError(f"'{server}' is not the address of a server", "write http://HOST:PORT")
        return server if "://" in server else f"http://{server}"
    if model is None:
        raise UsageError("no model is specified", "pass MODEL.gguf, or --server http://host:port")
    return model_file(model)


def _adapter(text: str) -> tuple[str, float]:
    path, _, strength = text.rpartition("=")
    try:
        factor = float(strength)
    except ValueError:
        path = ""  # a file with = in its name
    if not path:
        return model_file(text), 1.0
    if not math.isfinite(factor):
        raise UsageError(f"the strength of {path} is {strength}", "write a number such as 0.5")
    return model_file(path), factor
