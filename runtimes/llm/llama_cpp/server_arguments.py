"""Convert LoadOptions to the command line of llama.cpp's own server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Sequence

from runtimes.errors import UsageError
from runtimes.host import performance_cores, usable_cores
from runtimes.llm.llama_cpp.memory import UBATCH, memory_mode
from runtimes.llm.llama_cpp.rpc import check_worker, remote_layers
from runtimes.llm.session import LoadOptions
from runtimes.model_files.gguf import GgufFile

# Encoders, which compute embeddings and generate no text. Source: LLM_ARCH_NAMES in src/llama-arch.cpp.
_ENCODERS = frozenset(
    (
        *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
        *("eurobert", "gemma-embedding", "t5encoder", "llama-embed"),
    )
)
_RANK = 4  # LLAMA_POOLING_TYPE_RANK: the file scores a text against a question
_LOAD_MODES = {"map": "mmap", "read": "none"}


def server_arguments(path: Path, file: GgufFile, context: int, options: LoadOptions) -> list[str]:
    """Return the options for `llama-server`, without its address.

    Batches, cache and memory mode are those that `memory_need` assumes. Raises UsageError for a setting that the
    server does not have, and HostError for a worker that cannot be used.
    """
    threads = options.threads or min(performance_cores(), usable_cores())
    words = [
        *("--model", str(path), "--ctx-size", str(context * options.slots), "--parallel", str(options.slots)),
        *("--threads", str(threads), "--threads-batch", str(options.batch_threads or threads)),
        *("--load-mode", _LOAD_MODES[memory_mode(file, options)]),
        *("--cache-type-k", options.kv_type, "--cache-type-v", options.kv_type),
        *("--fit", "off", "--offline", "--metrics"),
        # Turn off the prompt cache in memory, which needs up to 8 GiB that `memory_need` does not include.
        *("--cache-ram", "0"),
        *_kind(file),
    ]
    for adapter, strength in options.adapters.items():
        words += ["--lora-scaled", f"{_without_commas(adapter)}:{strength:g}"]
    if options.workers:
        words += _workers(options.workers, file.integer("block_count") or 0)
    if options.settings:
        name = next(iter(options.settings))
        raise UsageError(f"llama-server has no setting '{name}'", "pass llama-server's own option after --")
    return words


def _workers(workers: Sequence[str], layers: int) -> list[str]:
    """Distribute the layers like `rpc.distribute_layers`. Raises HostError for a worker that cannot be used."""
    for worker in workers:
        check_worker(worker)  # llama.cpp aborts if a worker cannot be reached
    return [
        *("--rpc", ",".join(workers), "--gpu-layers", str(remote_layers(layers, len(workers)))),
        *("--tensor-split", ",".join("1" for _ in workers)),
    ]


def _kind(file: GgufFile) -> list[str]:
    """Return the options for a model's task; for embeddings and ranking a batch must hold a whole text."""
    pooling = file.integer("pooling_type")
    if pooling == _RANK:
        return ["--reranking"]
    if pooling or file.architecture in _ENCODERS:
        return ["--embeddings"]
    return ["--ubatch-size", str(UBATCH)]


def _without_commas(path: str) -> str:
    if "," in path or ":" in os.path.splitdrive(path)[1]:
        raise UsageError(
            f"llama-server does not accept the adapter {path}", "rename it: its path must not have commas or colons"
        )
    return path
