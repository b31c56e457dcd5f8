"""llama.cpp in the prebuilt wheels of xllamacpp: installs in seconds, without a compiler.

The package has one class, which runs a llama-server inside this process. The server always listens on a loopback
port, so it gets a random API key.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtimes.engine_support.adapter import import_engine, opening
from runtimes.errors import UsageError
from runtimes.host import performance_cores, usable_cores
from runtimes.llm.llama_cpp.http_session import ServerSession
from runtimes.llm.llama_cpp.memory import context_size, memory_mode
from runtimes.llm.llama_cpp.picture_session import open_with_pictures
from runtimes.llm.llama_cpp.server_program import find_program
from runtimes.llm.session import LoadOptions, TextEngine, TextSession
from runtimes.model_files.gguf import read_gguf
from runtimes.registry import distribution_version, is_installed, missing
from runtimes.session import check_settings


class Adapter(TextEngine):
    """The engine for machines without a compiler. It cannot save its state or distribute a model over workers."""

    id = "xllamacpp"
    formats: tuple[str, ...] = ("gguf",)
    requires = "xllamacpp"

    def version(self) -> str:
        """Return the version of xllamacpp. Raises EngineMissingError if it is not installed."""
        if not is_installed(self):
            raise missing(self)
        return distribution_version("xllamacpp")

    def open_text(self, model: str, options: LoadOptions) -> TextSession:
        """See `runtimes.llm.session.TextEngine`."""
        library = import_engine(self, "xllamacpp")
        check_settings(options.settings, self.settings, self.id)
        if options.workers or options.adapters:
            raise UsageError("xllamacpp takes no workers and no adapters here", "use --runtime llama_cpp")
        if options.mmproj is not None:
            return open_with_pictures(model, options, find_program(self.id))
        path = Path(model)
        file = read_gguf(path)
        context = context_size(file, path, options)
        threads = options.threads or min(performance_cores(), usable_cores())
        key, memory = secrets.token_hex(16), memory_mode(file, options)
        with opening(self.id, path):
            server = library.Server(
                _parameters(library, path, options, context=context, threads=threads, key=key, memory=memory)
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
    """Keeps the server alive as long as the session is used."""

    def __init__(self, server: Any, key: str) -> None:
        self._server = server
        super().__init__(server.listening_address, key)
        # The server accepts requests before its loop runs, and hangs forever if it is stopped before that. An answer
        # that passes through the loop proves that it runs.
        self._json("GET", "/slots")

    def close(self) -> None:
        """See `TextSession`."""
        super().close()
        self._server = None


def _parameters(
    library: Any, path: Path, options: LoadOptions, *, context: int, threads: int, key: str, memory: str
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
    parameters.n_cache_reuse = 16  # tokens: cached tokens after a gap are shifted, not processed again
    return parameters
