"""The chains that draw the next token, of llama.cpp's own samplers: everything happens in C."""

from __future__ import annotations

import secrets
from typing import Any, Sequence

from runtimes.errors import InputError, first_line
from runtimes.text import TextOptions

_MOST_GRAMMAR = 256 * 1024  # bytes; llama.cpp's parser recurses over it
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's word for "any", which must not be drawn
_MIN_KEEP = 1


def drawn_seed(options: TextOptions) -> int:
    """The seed that was asked for, else a random one."""
    return options.seed if options.seed is not None else secrets.randbelow(_RANDOM_SEED)


def chain(library: Any, vocabulary: Any, options: TextOptions, prompt: Sequence[int], seed: int) -> Any:
    """A sampler chain, to be freed with `llama_sampler_free`; InputError for a grammar that is none.

    `modern` in llama.cpp's order of today: penalties, top-k, top-p, min-p, temperature, draw. `2023` in that of
    alpaca.cpp's chat: penalties, temperature, top-k, softmax, top-p, draw; top-k before temperature keeps the same
    tokens. The window of the penalties holds the end of the prompt in both.
    """
    grammar = _grammar(library, vocabulary, options)
    found = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
    for sampler in (*grammar, *_penalties(library, vocabulary, options, prompt), *_draw(library, options, seed)):
        library.llama_sampler_chain_add(found, sampler)
    return found


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
    text = options.grammar if options.json_schema is None else _grammar_of_schema(options.json_schema)
    if text is None:
        return []
    if len(text.encode()) > _MOST_GRAMMAR:
        raise InputError(f"the grammar is longer than {_MOST_GRAMMAR // 1024} KiB", "give a smaller one")
    sampler = library.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
    if not sampler:
        raise InputError("the grammar is not valid GBNF with a rule named root", "see grammars/README.md of llama.cpp")
    return [sampler]


def _grammar_of_schema(schema: str) -> str:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    if len(schema.encode()) > _MOST_GRAMMAR:
        raise InputError(f"the JSON schema is longer than {_MOST_GRAMMAR // 1024} KiB", "give a smaller one")
    try:
        return str(json_schema_to_gbnf(schema))
    except (Exception, RecursionError) as error:  # its converter raises whatever a wrong schema leads it to
        hint = "give a JSON schema; references to other files are not followed"
        raise InputError(f"the JSON schema cannot be used: {first_line(error)}", hint) from None
