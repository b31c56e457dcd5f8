"""The served model: a file that edge's own llama-server loads, or a llama-server that is already running."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.serve.llama_server import LlamaServer, check_extra_arguments, check_prebuilt
from edge.serve.proxy import Facts
from edge.serve.template_guard import TemplateGuard, guard_template
from edge.serve.upstream import ModelServer, Upstream, UpstreamError
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import HostError, UsageError
from runtimes.llm.llama_cpp.server_program import find_program

if TYPE_CHECKING:
    from edge.llm.loading import LlmSource

_KEY = "EDGE_API_KEY"
_MAX_BYTES = 16 << 20
_HINT = "start llama-server there, and check the address and EDGE_API_KEY"
_PREBUILT_NOTE = (
    "this is the prebuilt llama.cpp: it processes prompts at 0.63 and generates at 0.97 of the speed of the one that"
    " `make llama` compiles for this CPU"
)


@dataclass(kw_only=True)
class ServedModel:
    """A model that can be served: start `engine`, then call `facts`; `close` releases all resources.

    sees_pictures: Whether it may have a picture encoder, so that pictures of requests are checked.
    """

    engine: ModelServer
    template: TemplateGuard
    notes: list[str] = field(default_factory=list)
    sees_pictures: bool = True
    _facts: Facts | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    async def facts(self, name: str | None) -> Facts:
        """Return the facts about the model, asking its server if needed; `name` replaces the model's own name."""
        if self._facts is None:
            self._facts = await _facts_of(self.engine.upstream)
        return self._facts if name is None else replace(self._facts, name=name)

    def stop(self) -> None:
        """End the running requests and reject new ones."""
        self.engine.stop()

    def close(self) -> None:
        """End the processes."""
        self.template.close()
        self.engine.close()
        self._stack.close()


class RemoteServer:
    """A llama-server that was started by others."""

    is_ready = True
    restarts = 0

    def __init__(self, address: str, key: str | None) -> None:
        self.upstream = Upstream(address, key)

    async def ready(self) -> None:
        """Do nothing: the server cannot be started from here, and the request reports if it does not answer."""

    async def wait_until_ended(self) -> None:
        """Do nothing: the server cannot be watched from here."""

    def stop(self) -> None:
        """Close all connections to it."""
        self.upstream.hang_up()

    def close(self) -> None:
        """Close all connections to it."""
        self.upstream.hang_up()


def remote_model(source: LlmSource, template: str | None, words: Sequence[str]) -> ServedModel:
    """Return the model of the running llama-server at `source`, which has its own options and template.

    Raises UsageError for options that cannot be changed there.
    """
    if source.runtime not in (None, "llama_server"):
        raise UsageError(f"--runtime {source.runtime} loads a file", "leave it out, or leave out --server")
    for name, value in (("--template", template), ("options after --", words)):
        if value:
            raise UsageError(f"{name} cannot be set on a running server", f"leave out {name}")
    return ServedModel(engine=RemoteServer(source.source, os.environ.get(_KEY)), template=TemplateGuard(None))


def local_model(source: LlmSource, template: str | None, words: Sequence[str], name: str | None = None) -> ServedModel:
    """Prepare the model file `source`: check that it is complete and fits into memory, and check its template.

    Raises InputError for the file, HostError if memory is insufficient (with the largest quantization that fits), and
    EngineMissingError.
    """
    from runtimes.llm.llama_cpp.memory import context_size
    from runtimes.llm.llama_cpp.picture_session import check_picture_encoder
    from runtimes.llm.llama_cpp.server_arguments import server_arguments
    from runtimes.model_files.gguf import read_gguf

    path = Path(source.source)
    file = read_gguf(path)
    for adapter in source.options.adapters:
        read_gguf(Path(adapter))
    program = find_program(source.runtime)
    check_extra_arguments(words)
    context = context_size(file, path, source.options)
    arguments = [*server_arguments(path, file, context, source.options), "--alias", name or path.stem]
    passed = _word_behind("--mmproj", words)
    encoder = passed or source.options.mmproj
    if encoder is not None:
        check_picture_encoder(Path(encoder), program)
        arguments += ["--mmproj", encoder] if passed is None else []
    check_prebuilt(program, [*arguments, *words])
    with ExitStack() as stack:
        guard = guard_template(file, path, template, _word_behind("--chat-template", words))
        stack.callback(guard.close)
        if guard.source is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-template-"))
            text = Path(folder) / "template.jinja"
            text.write_text(guard.source, encoding="utf-8")
            arguments += ["--chat-template-file", str(text)]
        engine = LlamaServer(program, [*arguments, *words], path.name)
        notes = [*([guard.problem] if guard.problem else []), *([_PREBUILT_NOTE] if program.is_prebuilt else [])]
        facts = _facts(file, path, source, context)
        return ServedModel(
            engine=engine,
            template=guard,
            notes=notes,
            sees_pictures=encoder is not None,
            _facts=facts,
            _stack=stack.pop_all(),
        )


def _word_behind(option: str, words: Sequence[str]) -> str | None:
    return next((words[place + 1] for place, word in enumerate(words[:-1]) if word == option), None)


def _facts(file: Any, path: Path, source: LlmSource, context: int) -> Facts:
    from runtimes.engines.llama_cpp import quantization
    from runtimes.llm.llama_cpp.memory import trained_context

    meta: JsonObject = {
        "context": context,
        "trained_context": trained_context(file),
        "quantization": quantization(file),
        "architecture": file.architecture,
        "parameters": file.parameters,
        "bytes": file.size,
        "slots": source.options.slots,
    }
    return Facts(
        name=path.stem, context=context, slots=source.options.slots, quantization=quantization(file), meta=meta
    )


async def _facts_of(upstream: Upstream) -> Facts:
    props, models = await _json(upstream, "/props"), await _json(upstream, "/v1/models")
    try:
        model = models["data"][0]
        theirs = model.get("meta") or {}
        context, slots = int(props["default_generation_settings"]["n_ctx"]), int(props.get("total_slots", 1))
        name = str(props.get("model_alias") or model.get("id")).rpartition("/")[2]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise HostError("the server at that address is not a llama-server", _HINT) from None
    quantization = str(props.get("model_ftype") or theirs.get("ftype") or "unknown")
    meta: JsonObject = {
        "context": context,
        "trained_context": theirs.get("n_ctx_train"),
        "quantization": quantization,
        "architecture": str(theirs.get("architecture", "unknown")),
        "parameters": theirs.get("n_params"),
        "bytes": theirs.get("size"),
        "slots": slots,
    }
    return Facts(name=name, context=context, slots=slots, quantization=quantization, meta=meta)


async def _json(upstream: Upstream, path: str) -> Any:
    place = upstream.address.partition("://")[2]
    try:
        async with upstream.ask("GET", path) as answer:
            body = await answer.body(_MAX_BYTES)
    except UpstreamError as error:
        raise HostError(f"no server answers at {place}: {error}", _HINT) from None
    if answer.status in (401, 403):
        raise HostError(f"{place} requires an API key", f"set it in the environment variable {_KEY}")
    try:
        return json.loads(body)
    except ValueError:
        raise HostError(f"the answer of {place} is not JSON", _HINT) from None
