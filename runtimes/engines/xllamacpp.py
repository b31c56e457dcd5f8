"""llama.cpp in the prebuilt wheels of xllamacpp: installs in seconds where there is no compiler.

The package has one class, a whole llama-server inside this process. It listens on a loopback port in any case, so it
gets a key that nobody else knows.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping

from runtimes.adapters import import_engine, opening
from runtimes.errors import UsageError
from runtimes.gguf_file import read_gguf
from runtimes.host import performance_cores, usable_cores
from runtimes.llama.memory import context_size, memory_mode
from runtimes.llama.server_client import ServerSession
from runtimes.registry import distribution_version, is_installed, missing
from runtimes.session import check_settings
from runtimes.text import LoadOptions


class Adapter:
    """The engine for machines without a compiler; it cannot save what it has read, nor share a model out."""

    id = "xllamacpp"
    formats: tuple[str, ...] = ("gguf",)
    requires = "xllamacpp"
    settings: Mapping[str, str] = {}

    def version(self) -> str:
        """The version of xllamacpp; EngineMissing when it is not installed."""
        if not is_installed(self):
            raise missing(self)
        return distribution_version("xllamacpp")

    def open_text(self, model: str, options: LoadOptions) -> ServerSession:
        """See `runtimes.text.TextRuntime`."""
        library = import_engine(self, "xllamacpp")
        check_settings(options.settings, self.settings, self.id)
        if options.workers or options.adapters:
            raise UsageError("xllamacpp takes no workers and no adapters here", "use --runtime llama_cpp")
        path = Path(model)
        file = read_gguf(path)
        context = context_size(file, path, options)
        threads = options.threads or min(performance_cores(), usable_cores())
        key, memory = secrets.token_hex(16), memory_mode(file, options)
        with opening(self.id, path):
            server = library.Server(
                _parameters(library, path, context, threads, key, options, memory_mode(file, options))
            )
        session = _Session(server, key)
        session.facts = replace(
            session.facts,
            name=file.text("general.name") or path.stem,
            architecture=file.architecture,
            context=min(context, session.facts.context),
            template=file.text("tokenizer.chat_template"),
            threads=threads,
            batch_threads=options.batch_threads or threads,
            memory=memory,
            system_info=str(library.get_system_info()),
        )
        return session


class _Session(ServerSession):
    """Keeps the server alive as long as it is used."""

    def __init__(self, server: Any, key: str) -> None:
        self._server = server
        super().__init__(server.listening_address, key)
        # The server answers before its loop runs, and waits for ever when it is told to end before that: an answer
        # that comes through the loop says that it runs.
        self._json("GET", "/slots")

    def close(self) -> None:
        """See `TextSession`."""
        super().close()
        self._server = None


def _parameters(
    library: Any, path: Path, context: int, threads: int, key: str, options: LoadOptions, memory: str
) -> Any:
    parameters = library.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context * options.slots
    parameters.n_parallel = options.slots
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = options.batch_threads or threads
    parameters.load_mode = getattr(library.llama_load_mode, f"LLAMA_LOAD_MODE_{'MMAP' if memory == 'map' else 'NONE'}")
    kind = getattr(library.ggml_type, f"GGML_TYPE_{options.kv_type.upper()}")
    parameters.cache_type_k = parameters.cache_type_v = kind
    parameters.api_keys = [key]
    parameters.warmup = False
    parameters.ui = False
    parameters.n_cache_reuse = 16  # tokens: what stands behind a gap is moved, not read again
    return parameters
