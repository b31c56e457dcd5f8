"""The options of `edge chat` and `edge serve` that say how a language model is loaded, or which server has it."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import InputError, UsageError

if TYPE_CHECKING:
    from edge.text import WorkerSession
    from runtimes.text import LoadOptions

# What a server was told when it was started.
_OF_THE_FILE = ("context", "slots", "threads", "memory", "kv_type", "lora", "workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to load, and who has loaded the model already."""
    from edge.arguments import count

    group = parser.add_argument_group("loading")
    group.add_argument("--context", type=count, metavar="N", help="tokens of each context (default: the model's)")
    group.add_argument("--threads", type=count, metavar="N", help="threads (default: physical performance cores)")
    group.add_argument("--memory", choices=["auto", "map", "read"], help="map the file, or read it (default: auto)")
    group.add_argument("--kv-type", choices=["f16", "q8_0", "q4_0", "f32"], help="type of the cache (default: f16)")
    group.add_argument("--lora", action="append", metavar="FILE[=X]", help="a LoRA in GGUF, with its strength (1)")
    group.add_argument("--workers", metavar="HOST:PORT,…", help="machines that take a share of the layers")
    group.add_argument("--server", metavar="URL", help="a llama-server that has the model, instead of MODEL")
    group.add_argument("--runtime", metavar="ID", help="the engine; `edge devices` lists them")


@dataclass(frozen=True)
class TextModel:
    """What is to be opened: `source` is a GGUF file, or the address of a server that has it open."""

    source: str
    runtime: str | None
    options: LoadOptions

    @property
    def name(self) -> str:
        """What it is called until it says so itself."""
        return self.source.partition("://")[2].rstrip("/") or Path(self.source).stem

    @property
    def is_served(self) -> bool:
        """Whether `source` is an address."""
        return is_address(self.source)

    def with_slots(self, slots: int) -> TextModel:
        """The same with so many contexts."""
        return replace(self, options=replace(self.options, slots=slots))

    def open(self) -> WorkerSession:
        """Load it, or reach its server; see `edge.text.open_session`."""
        from edge.text import open_session

        return open_session(self.source, self.options, self.runtime)


def chosen(args: argparse.Namespace) -> TextModel:
    """The model that was asked for. UsageError for none or two, and for what only its server can be told."""
    from runtimes.text import LoadOptions

    source = _source(args.model, args.server)
    if is_address(source):
        given = [name for name in _OF_THE_FILE if getattr(args, name, None) is not None]
        if given:
            word = f"--{given[0].replace('_', '-')}"
            raise UsageError(f"{word} is told to a server when it is started", f"leave {word} out here")
        return TextModel(source, args.runtime or "llama_server", LoadOptions())
    options = LoadOptions(
        context=args.context,
        threads=args.threads,
        memory=args.memory or "auto",
        kv_type=args.kv_type or "f16",
        adapters=dict(_adapter(text) for text in args.lora or []),
        workers=tuple(word for word in (args.workers or "").split(",") if word),
    )
    return TextModel(source, args.runtime, options)


def is_address(source: str) -> bool:
    """Whether it is a server's address, and no file."""
    return source.lower().startswith(("http://", "https://"))


def model_file(given: str) -> str:
    """The GGUF file: that of an artifact's folder, else what was given. InputError for a folder of something else."""
    from runtimes.artifact import MANIFEST, Artifact

    folder = Path(given)
    if not folder.is_dir():
        return given
    if not (folder / MANIFEST).is_file():
        base = " --base FOLDER" if (folder / "adapter_config.json").is_file() else ""
        raise InputError(f"{given} is a folder, and no artifact", f"make one: edge convert {given} --to gguf{base}")
    artifact = Artifact.open(folder)
    if artifact.manifest.format != "gguf":
        raise InputError(f"{given} is no language model: its format is {artifact.manifest.format}", "give one in gguf")
    return str(artifact.model)


def _source(model: str | None, server: str | None) -> str:
    if model is not None and server is not None:
        raise UsageError("a model and a server are given", "give one of the two")
    if server is not None:
        if "://" in server and not is_address(server):
            raise UsageError(f"'{server}' is no address of a server", "write http://HOST:PORT")
        return server if "://" in server else f"http://{server}"
    if model is None:
        raise UsageError("no model is given", "give MODEL.gguf, or --server http://host:port")
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
        raise UsageError(f"the strength of {path} is {strength}", "give a number, as 0.5")
    return model_file(path), factor
