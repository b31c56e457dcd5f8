"""What every language-model engine looks like from outside: tokens in, tokens out.

A `TextRuntime` opens a GGUF file, or a server that has one open, and gives a `TextSession` that continues token
sequences. Chat templates, histories, stop strings and styles live in `edge/`; here is what the engine alone can do.

Reading a prompt is the slow part of a chat, so a session remembers what it has read. `generate` always takes the
whole sequence; what a slot of the session has read already is not read again, not even behind a gap: when a caller
drops old turns from the middle ([system | old | new …] → [system | new …]), engines with the capability "shift" move
what they have read of `new` into its new place. How much was reused is told in `Finish.reused_tokens`.

Capabilities, since not every engine has all:

    tokenize    text ↔ the model's token ids
    logits      raw scores of the next token at every position
    shift       reuse behind a gap, see above
    state       what was read can be saved to a file and taken up by another process
    quantize    the engine can write a file anew in another quantisation (`quantize` of its adapter)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Iterator, Mapping, Protocol, Sequence

from runtimes.arrays import Array
from runtimes.errors import UsageError
from runtimes.session import MOST_THREADS, Engine

CAPABILITIES = ("tokenize", "logits", "shift", "state", "quantize")
# Why a continuation ended: the model said so, `max_tokens` was reached, the context is full, `cancel` was set.
FINISHES = ("stop", "length", "context", "cancelled")
# The order of the sampling steps. `modern` is llama.cpp's of today; `2023` is that of alpaca.cpp's chat
# (penalty, 1/temperature, top-k, softmax, top-p, draw), whose penalty window also holds the prompt.
CHAINS = ("modern", "2023")
# Every running answer takes a row of each step, and llama_cpp's steps have so many (UBATCH): with one answer more, one
# would stand still until another ends.
MOST_SLOTS = 128


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model.

    context      tokens that each slot can hold, prompt and answer together; None: what the model was trained for,
                 as far as the memory of this machine allows
    slots        how many sequences are continued at the same time, MOST_SLOTS at most, each with its own context
    threads      for generating; None: the physical performance cores
    batch_threads  for reading prompts; None: as many as `threads`, all cores where that is faster
    memory       "auto" chooses per quantisation and device between "map" (pages of the file, shared and dropped under
                 pressure) and "read" (a copy, which engines may lay out anew without holding the file twice)
    kv_type      element type of the cache of keys and values: "f16", "q8_0", "q4_0", "f32"
    adapters     LoRA adapters in GGUF, {path: strength}
    workers      "host:port" of llama.cpp RPC workers that take a share of the layers
    settings     the engine's own switches, each documented in its adapter's `settings`
    """

    context: int | None = None
    slots: int = 1
    threads: int | None = None
    batch_threads: int | None = None
    memory: str = "auto"
    kv_type: str = "f16"
    adapters: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("threads", "batch_threads"):
            _between(name, getattr(self, name), 1, MOST_THREADS)
        _between("context", self.context, 8, 2**24)
        _between("slots", self.slots, 1, MOST_SLOTS)
        _one_of("memory", self.memory, ("auto", "map", "read"))
        _one_of("kv_type", self.kv_type, ("f16", "q8_0", "q4_0", "f32"))


@dataclass(frozen=True)
class TextOptions:
    """How to continue a text. Temperature 0 is greedy: the likeliest token, always.

    max_tokens   None: until the model ends or the context is full
    seed         None: another one each time; what was drawn is in `Finish.seed`
    grammar      GBNF that the answer has to follow; json_schema is the same for JSON, as text. One of the two at most
    ignore_end   do not stop where the model says that the text ends (for measuring)
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    chain: str = "modern"
    grammar: str | None = None
    json_schema: str | None = None
    ignore_end: bool = False

    def __post_init__(self) -> None:
        _between("max_tokens", self.max_tokens, 0, 2**31)
        _between("temperature", self.temperature, 0, 100)
        _between("top_k", self.top_k, 0, 2**31)
        for name in ("top_p", "min_p"):
            _between(name, getattr(self, name), 0, 1)
        _between("repeat_penalty", self.repeat_penalty, 0.01, 100)
        _between("repeat_last_n", self.repeat_last_n, 0, 2**24)
        for name in ("presence_penalty", "frequency_penalty"):
            _between(name, getattr(self, name), -2, 2)
        _between("seed", self.seed, 0, 2**32 - 1)
        _one_of("chain", self.chain, CHAINS)
        if self.grammar is not None and self.json_schema is not None:
            raise UsageError("a grammar and a JSON schema are asked for", "give one of the two")


@dataclass(frozen=True)
class Finish:
    """How a continuation ended, and what it cost.

    reason           one of FINISHES
    prompt_tokens    length of the sequence that was given; reused_tokens of them had been read before
    prompt_s         seconds until the first token's scores were there: reading what was new of the prompt
    tokens           how many were generated, in seconds: `generate_s`, waiting for other slots included
    seed             what the draws began with
    """

    reason: str
    prompt_tokens: int
    reused_tokens: int
    prompt_s: float
    tokens: int
    generate_s: float
    seed: int


@dataclass(frozen=True)
class Token:
    """One generated token.

    `text` is what became complete with it, so it may be empty inside a character of several bytes; all texts joined
    are the answer. `id` is None where the engine does not tell. The last Token of a continuation has `finish`, no id,
    and the text that was still held back.
    """

    id: int | None
    text: str
    finish: Finish | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What a loaded model is.

    context is that of one slot; trained_context the model's own. `template` is its chat template (Jinja), None where
    it has none. bos, eos are token ids; `ends` are all that end a text. `threads` and `batch_threads` are in use.
    `system_info` is the engine's own line about the CPU. `metadata` holds the file's short entries, as text.
    """

    name: str
    architecture: str
    quantization: str
    parameters: int | None
    bytes: int | None
    vocabulary: int
    context: int
    trained_context: int | None
    slots: int
    bos: int | None
    eos: int | None
    ends: tuple[int, ...]
    adds_bos: bool
    template: str | None
    threads: int | None
    batch_threads: int | None
    memory: str | None
    system_info: str = ""
    bos_text: str = ""
    eos_text: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class TextSession(Protocol):
    """A language model that is loaded and ready; a context manager, closed at its end.

    `generate` may be called from as many threads as there are slots; one call more waits for a slot to be free.
    """

    @property
    def capabilities(self) -> frozenset[str]:
        """Which of CAPABILITIES it has."""

    @property
    def facts(self) -> ModelFacts:
        """What the model is."""

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """The token ids of `text`; `special` reads `<s>` and the like as tokens, `begin` adds BOS where the model does.

        With `special` False a user's text cannot forge the marks of a chat template.
        """

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD, special tokens are left out unless asked for."""

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        """Continue `tokens`, which fit the context (else InputError); the last Token yielded has `finish`.

        Setting `cancel` ends it within 0.5 s, even while a long prompt is being read; so does closing the iterator.
        What was read until then is kept for the next call.
        """

    def logits(self, tokens: Sequence[int]) -> Array:
        """Raw scores of the next token after each of `tokens`: float32 [len(tokens), vocabulary]."""

    def save_state(self, path: str) -> None:
        """Write what slot 0 has read to a file, by a temporary name."""

    def load_state(self, path: str) -> list[int]:
        """Take up what `save_state` wrote; returns the tokens that need not be read again. InputError for a misfit."""

    def close(self) -> None:
        """Give back what the engine holds; continuations under way end as cancelled."""


class TextRuntime(Engine, Protocol):
    """An engine for language models."""

    def open_text(self, model: str, options: LoadOptions) -> TextSession:
        """Load a model file, or reach the server whose address `model` is.

        InputError for a broken file, EngineError for a failing engine, HostError for a server or worker that cannot
        be reached or too little memory, UsageError for options that the engine cannot meet.
        """


def _between(name: str, value: float | None, least: float, most: float) -> None:
    # Written so that NaN fails too.
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} is {value}", f"choose {least:g} to {most:g}")


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is '{value}'", f"choose one of: {', '.join(allowed)}")
