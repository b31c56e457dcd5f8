"""llama.cpp's server from the wheel of xllamacpp, as a program: `python -m runtimes.llm.xllamacpp_server OPTIONS`.

It supports the options of llama-server in `_WORDS`, reads the API key from the variable LLAMA_API_KEY, and serves until
its stdin closes. The wheel has the whole server in one class, but no command line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

Setter = Callable[[Any, Any, str], None]  # the module, its parameters, the value of the option


def _attribute(*names: str, kind: Callable[[str], Any] = str) -> Setter:
    def set_it(_library: Any, parameters: Any, word: str) -> None:
        for name in names:
            *parts, last = name.split(".")
            place = parameters
            for part in parts:
                place = getattr(place, part)
            setattr(place, last, kind(word))

    return set_it


def _of_enum(enum: str, prefix: str, *names: str) -> Setter:
    def set_it(library: Any, parameters: Any, word: str) -> None:
        value = getattr(getattr(library, enum), f"{prefix}{word.upper()}")
        for name in names:
            setattr(parameters, name, value)

    return set_it


def _adapter(library: Any, parameters: Any, word: str) -> None:
    path, _, strength = word.rpartition(":")
    adapter = library.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = path, float(strength)
    parameters.lora_adapters = [*parameters.lora_adapters, adapter]


def _ranking(library: Any, parameters: Any, _word: str) -> None:
    parameters.embedding = True
    parameters.pooling_type = library.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _flash_attention(library: Any, parameters: Any, word: str) -> None:
    name = {"on": "ENABLED", "off": "DISABLED"}.get(word, "AUTO")
    parameters.flash_attn_type = getattr(library.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{name}")


def _flag(name: str, value: bool = True) -> Setter:
    return lambda _library, parameters, _word: setattr(parameters, name, value)


_WORDS: dict[str, Setter] = {
    "--model": _attribute("model.path"),
    "--alias": _attribute("model_alias", kind=lambda word: {word}),
    "--host": _attribute("hostnames", kind=lambda word: [word]),
    "--ctx-size": _attribute("n_ctx", kind=int),
    "--parallel": _attribute("n_parallel", kind=int),
    "--threads": _attribute("cpuparams.n_threads", kind=int),
    "--threads-batch": _attribute("cpuparams_batch.n_threads", kind=int),
    "--batch-size": _attribute("n_batch", kind=int),
    "--ubatch-size": _attribute("n_ubatch", kind=int),
    "--load-mode": _of_enum("llama_load_mode", "LLAMA_LOAD_MODE_", "load_mode"),
    "--cache-type-k": _of_enum("ggml_type", "GGML_TYPE_", "cache_type_k"),
    "--cache-type-v": _of_enum("ggml_type", "GGML_TYPE_", "cache_type_v"),
    "--flash-attn": _flash_attention,
    "--cache-ram": _attribute("cache_ram_mib", kind=int),
    "--cache-reuse": _attribute("n_cache_reuse", kind=int),
    "--fit": _attribute("fit_params", kind=lambda word: word == "on"),
    "--pooling": _of_enum("llama_pooling_type", "LLAMA_POOLING_TYPE_", "pooling_type"),
    "--lora-scaled": _adapter,
    "--mmproj": _attribute("mmproj.path"),
    "--chat-template": _attribute("chat_template"),
    "--chat-template-file": _attribute("chat_template", kind=lambda word: Path(word).read_text(encoding="utf-8")),
    "--temp": _attribute("sampling.temp", kind=float),
    "--seed": _attribute("sampling.seed", kind=int),
    "--n-predict": _attribute("n_predict", kind=int),
    "--sse-ping-interval": _attribute("sse_ping_interval", kind=int),
    "--log-verbosity": _attribute("verbosity", kind=int),
}
_FLAGS: dict[str, Setter] = {
    "--embeddings": _flag("embedding"),
    "--embedding": _flag("embedding"),
    "--reranking": _ranking,
    "--metrics": _flag("endpoint_metrics"),
    "--no-ui": _flag("ui", False),
    "--offline": _flag("offline"),
    "--context-shift": _flag("ctx_shift"),
    "--jinja": _flag("use_jinja"),
    "--no-slots": _flag("endpoint_slots", False),
}


def unknown_words(words: Sequence[str]) -> list[str]:
    """Return the options of llama-server that the server in the wheel does not support."""
    return [name for name, _ in _pairs(words) if name not in _WORDS and name not in _FLAGS]


def _pairs(words: Sequence[str]) -> Iterator[Any]:
    rest = iter(words)
    for name in rest:
        yield name, (next(rest, "") if name in _WORDS else "")


def main(words: Sequence[str]) -> int:
    """Serve until stdin closes."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.api_keys = [os.environ["LLAMA_API_KEY"]]
    for name, word in _pairs(words):
        {**_WORDS, **_FLAGS}[name](xllamacpp, parameters, word)
    server = xllamacpp.Server(parameters)
    sys.stdin.read()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
