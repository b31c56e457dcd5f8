"""The interface of language-model engines: tokens in, tokens out.

A `TextEngine` opens a GGUF file, or connects to a server, and returns a `TextSession` that continues token sequences.
Chat templates, histories, stop texts and styles belong to `edge/`.

Processing a prompt is the slow part of a chat, so a session caches it. `generate` always takes the whole sequence, and
cached tokens are not processed again. This also works after a gap: when a caller drops old turns from the middle
([system | old | new …] → [system | new …]), engines with the capability "shift" move the cached part `new` to its new
position. `Finish.reused_tokens` reports how much was reused.

Capabilities, which not every engine has:

    tokenize    convert text to the model's token ids and back
    logits      raw scores of the next token at every position
    shift       reuse after a gap, see above
    state       save the cache to a file, and load it in another process
    quantize    write a file in another quantization (`quantize` of its adapter)
    pictures    continue a text with pictures in it, with the picture encoder `LoadOptions.mmproj`
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Iterator, Mapping, Protocol, Sequence, TypeVar

from runtimes.arrays import Array
from runtimes.errors import UsageError
from runtimes.session import MAX_THREADS, Engine

S = TypeVar("S", bound="TextSession")

CAPABILITIES = ("tokenize", "logits", "shift", "state", "quantize", "pictures")
# Why a continuation ended: an end token, `max_tokens` was reached, the context is full, `cancel` was set.
FINISHES = ("stop", "length", "context", "cancelled")
# The order of the sampling steps. `modern` is llama.cpp's current one; `2023` is that of alpaca.cpp's chat
# (penalty, 1/temperature, top-k, softmax, top-p, draw), whose penalty window includes the prompt.
CHAINS = ("modern", "2023")
MAX_SLOTS = (
    128  # llama-server evaluates a token of each running answer in one step, and the steps are this long (UBATCH)
)


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model.

    context: Tokens that each slot can hold, prompt and answer together; None uses the length that the model was trained
        with, as far as the memory of this machine allows.
    slots: Sequences that a server continues at the same time, each with its own context; at most MAX_SLOTS. llama_cpp
        continues one text at a time.
    threads: Threads for generation; None uses the physical performance cores.
    batch_threads: Threads for prompts; None uses as many as `threads`, or all cores if that is faster.
    memory: "map" uses the pages of the file, which are shared and can be dropped; "read" copies the file, which lets
        engines repack it without storing it twice; "auto" chooses by quantization and device.
    kv_type: The type of the cache of keys and values: "f16", "q8_0", "q4_0", "f32".
    adapters: LoRA adapters in GGUF, {path: strength}.
    workers: "host:port" of llama.cpp RPC workers that compute a part of the layers.
    settings: The engine's own settings, documented in its adapter's `settings`.
    mmproj: The file of the picture encoder (mmproj, GGUF), for a model that sees pictures.
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
    mmproj: str | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "batch_threads"):
            _between(name, getattr(self, name), 1, MAX_THREADS)
        _between("context", self.context, 8, 2**24)
        _between("slots", self.slots, 1, MAX_SLOTS)
        _one_of("memory", self.memory, ("auto", "map", "read"))
        _one_of("kv_type", self.kv_type, ("f16", "q8_0", "q4_0", "f32"))


@dataclass(frozen=True)
class TextOptions:
    """How to continue a text. Temperature 0 always takes the likeliest token.

    max_tokens: The maximum number of tokens; None continues until the model ends the text or the context is full.
    seed: The seed; None uses a random one, which is in `Finish.seed`.
    chain: The order of the sampling steps, one of CHAINS.
    grammar: GBNF that the answer must follow. At most one of this and `json_schema`.
    json_schema: A JSON schema, as text, that the answer must follow.
    ignore_end: Continue after end tokens, for measurements.
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
            raise UsageError("a grammar and a JSON schema cannot be combined", "leave out one of them")


@dataclass(frozen=True)
class PromptPart:
    """A part of a prompt with pictures: a text, or a picture as PNG.

    is_special: Parse texts such as `<s>` as special tokens; False for the text of a user.
    """

    text: str = ""
    is_special: bool = True
    picture: bytes | None = None


@dataclass(frozen=True)
class Finish:
    """How a continuation ended, and its measurements.

    reason: One of FINISHES.
    prompt_tokens: The length of the prompt.
    reused_tokens: How many of them were cached.
    prompt_s: Seconds until the first token's scores were available.
    tokens: The number of generated tokens.
    generate_s: Seconds to generate them.
    seed: The seed of the sampling.
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

    id: Its id; None if the engine does not report it.
    text: The text that it completes, which is empty within a character of several bytes. All texts joined are the
        answer.
    finish: Set only for the last Token of a continuation, which has no id, and the rest of the text.
    """

    id: int | None
    text: str
    finish: Finish | None = None


@dataclass(frozen=True)
class LlmFacts:
    """The facts about a loaded model.

    bytes: The size of its weights.
    vocabulary: The number of its tokens.
    context: The context length of one slot.
    trained_context: The context length that it was trained with.
    bos, eos: Ids of the tokens that begin and end a text.
    ends: The ids of all tokens that end a text.
    adds_bos: Whether prompts begin with BOS.
    template: Its chat template (Jinja); None if it has none.
    threads, batch_threads: The threads in use.
    memory: "map" or "read".
    system_info: The engine's own line about the CPU.
    bos_text, eos_text: The texts of these tokens.
    metadata: The short entries of the file's metadata, as text.
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
    """A loaded language model; a context manager.

    `generate` may be called from as many threads as there are slots; further calls wait for a free slot.
    """

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that it has."""

    @property
    def facts(self) -> LlmFacts:
        """The facts about the model."""

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """Return the token ids of `text`.

        special: Parse texts such as `<s>` as special tokens. If False, a user's text cannot forge the control tokens of
            a chat template.
        begin: Add BOS if the model uses it.
        """

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of `tokens`, without special tokens unless `special`. Invalid UTF-8 becomes U+FFFD."""

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        """Continue `tokens`; the last Token yielded has `finish`. Raises InputError if they exceed the context.

        Setting `cancel` ends it within 0.5 s, even while a long prompt is processed; so does closing the iterator.
        What was processed until then stays cached.
        """

    def picture_tokens(self, picture: bytes) -> int:
        """Return the number of tokens that a picture takes in the context. Raises UsageError without "pictures"."""

    def generate_parts(
        self, parts: Sequence[PromptPart], length: int, options: TextOptions, cancel: Event | None = None
    ) -> Iterator[Token]:
        """Continue a prompt of `length` tokens that has pictures, like `generate`.

        Raises UsageError without "pictures".
        """

    def logits(self, tokens: Sequence[int]) -> Array:
        """Return the raw scores of the next token after each of `tokens`: float32 [len(tokens), vocabulary].

        Raises EngineError while a text is continued.
        """

    def save_state(self, path: str) -> None:
        """Write the cache to a file, atomically. Raises EngineError while a text is continued."""

    def load_state(self, path: str) -> list[int]:
        """Load a file of `save_state`, and return the cached tokens. Raises InputError if it does not fit the model."""

    def close(self) -> None:
        """Release the engine's resources; running continuations end as cancelled."""

    def __enter__(self: S) -> S:
        """Return the session."""

    def __exit__(self, *_: object) -> None:
        """Close the session."""


class TextEngine(Engine):
    """An engine for language models."""

    @abstractmethod
    def open_text(self, model: str, options: LoadOptions) -> TextSession:
        """Load a model file, or connect to a server if `model` is an address.

        Raises InputError for a broken file, EngineError if the engine fails, HostError if a server or worker cannot be
        reached or memory is insufficient, and UsageError for options that the engine does not support.
        """


class TextOnly:
    """The part of a `TextSession` without the capability "pictures"."""

    def picture_tokens(self, *_arguments: Any, **_named: Any) -> int:
        """Raise UsageError: there is no picture encoder."""
        raise _without_pictures()

    def generate_parts(self, *_arguments: Any, **_named: Any) -> Iterator[Token]:
        """Raise UsageError: there is no picture encoder."""
        raise _without_pictures()


def _without_pictures() -> UsageError:
    hint = "convert its folder again with edge convert, which writes the mmproj file next to it, or pass --mmproj FILE"
    return UsageError("the model has no picture encoder", hint)


def _between(name: str, value: float | None, least: float, most: float) -> None:
    # Written so that NaN fails too.
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} is {value}", f"choose a value from {least:g} to {most:g}")


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is '{value}'", f"choose one of: {', '.join(allowed)}")
