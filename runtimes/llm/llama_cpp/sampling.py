"""Build the sampler chains that choose the next token, from llama.cpp's own samplers, which run in C."""

from __future__ import annotations

import secrets
from typing import Any, Sequence

from runtimes.errors import InputError
from runtimes.llm.grammar.json_schema import MAX_BYTES, grammar_of
from runtimes.llm.session import TextOptions

_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's value for "any seed", which must not be drawn
_MIN_KEEP = 1


def choose_seed(options: TextOptions) -> int:
    """Return the requested seed, else a random one."""
    return options.seed if options.seed is not None else secrets.randbelow(_RANDOM_SEED)


def build_chain(library: Any, vocabulary: Any, options: TextOptions, prompt: Sequence[int], seed: int) -> Any:
    """Return a sampler chain, to be freed with `llama_sampler_free`. Raises InputError for an invalid grammar.

    `modern` uses llama.cpp's current order: penalties, top-k, top-p, min-p, temperature, draw. `2023` uses that of
    alpaca.cpp's chat: penalties, temperature, top-k, softmax, top-p, draw; here top-k comes before the temperature,
    which keeps the same tokens. In both, the window of the penalties includes the end of the prompt.
    """
    grammar = _grammar(library, vocabulary, options)
    samplers = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
    for sampler in (*grammar, *_penalties(library, vocabulary, options, prompt), *_draw(library, options, seed)):
        library.llama_sampler_chain_add(samplers, sampler)
    return samplers


def _draw(library: Any, options: TextOptions, seed: int) -> list[Any]:
    if options.temperature == 0:
        return [library.llama_sampler_init_greedy()]
    top_k = library.llama_sampler_init_top_k(options.top_k)
    top_p = library.llama_sampler_init_top_p(options.top_p, _MIN_KEEP)
    temperature = library.llama_sampler_init_temp(options.temperature)
    dist = library.llama_sampler_init_dist(seed)
    if options.chain == "2023":
        return [top_k, temperature, top_p, dist]
    return [top_k, top_p, library.llama_sampler_init_min_p(options.min_p, _MIN_KEEP), temperature, dist]


def _penalties(library: Any, vocabulary: Any, options: TextOptions, prompt: Sequence[int]) -> list[Any]:
    neutral = options.repeat_penalty == 1 and not options.presence_penalty and not options.frequency_penalty
    if neutral or options.repeat_last_n == 0:
        return []
    sampler = library.llama_sampler_init_penalties(
        library.llama_vocab_n_tokens(vocabulary),
        options.repeat_last_n,
        options.repeat_penalty,
        options.frequency_penalty,
        options.presence_penalty,
    )
    for token in prompt[-options.repeat_last_n :]:
        library.llama_sampler_accept(sampler, token)
    return [sampler]


def _grammar(library: Any, vocabulary: Any, options: TextOptions) -> list[Any]:
    text = options.grammar if options.json_schema is None else grammar_of(options.json_schema)
    if text is None:
        return []
    if len(text.encode()) > MAX_BYTES:
        raise InputError(f"the grammar is longer than {MAX_BYTES // 1024} KiB", "use a smaller one")
    sampler = library.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
    if not sampler:
        raise InputError("the grammar is not valid GBNF with a rule named root", "see grammars/README.md of llama.cpp")
    return [sampler]
