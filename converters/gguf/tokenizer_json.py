"""Read Hugging Face's `tokenizer.json` as a `Vocabulary`: SentencePiece's BPE and byte-level BPE, without guessing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.base import Requirement
from converters.gguf.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNREACHED,
    UNUSED,
    USER_DEFINED,
    Encode,
    Vocabulary,
)
from converters.gguf.weights import check_size, read_json
from converters.library_calls import loading
from runtimes.errors import InputError

LARGEST = 256 * 2**20
_MAX_TOKENS = 2**22
_MAX_TEMPLATE = 2**20
_ONLY = "what works: SentencePiece's BPE (LLaMA 1 and 2, Mistral) and byte-level BPE (LLaMA 3, Qwen, SmolLM)"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3_WORDS = _CASELESS + r"\p{N}{1,3}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is split into words, and whether whole words are looked up before merging → llama.cpp's name for it.
# Source: llm_tokenizer_bpe and llama_vocab::impl::load in src/llama-vocab.cpp.
PRE = {
    (("regex", LLAMA_3_WORDS), True): "llama-bpe",
    (("regex", LLAMA_3_WORDS), False): "dbrx",
    (("regex", _CASELESS + r"\p{N}" + _REST), False): "qwen2",
    (("regex", _QWEN35), False): "qwen35",
    (("regex", _TEKKEN), True): "tekken",
    (("regex", _GPT2), False): "gpt-2",
    (("digits", "regex", _GPT2), False): "smollm",
}


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json: its path and content."""

    path: Path
    content: dict[str, Any]

    @property
    def model(self) -> Any:
        """The part that merges pieces."""
        return self.content["model"]

    @property
    def added(self) -> dict[int, AddedToken]:
        """The added tokens by id."""
        tokens = (AddedToken.read(one) for one in self.content.get("added_tokens") or [])
        return {token.id: token for token in tokens}

    def parts(self, key: str, inner: str) -> list[Any]:
        """Return the parts of a normalizer or pre-tokenizer; `inner` is the name of the list in a sequence."""
        node = self.content.get(key)
        if not node:
            return []
        return list(node[inner]) if node["type"] == "Sequence" else [node]


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that was added to those of the model."""

    id: int
    text: str
    is_special: bool
    strips_behind: bool

    @classmethod
    def read(cls, entry: Any) -> AddedToken:
        """Read an entry of `added_tokens`."""
        strips, special = bool(entry.get("rstrip")), bool(entry.get("special"))
        return cls(id=int(entry["id"]), text=str(entry["content"]), is_special=special, strips_behind=strips)


@dataclass(frozen=True)
class TokenizerSettings:
    """A tokenizer_config.json; empty if there is none."""

    content: dict[str, Any]

    def get(self, key: str) -> Any:
        """Return the value of a key."""
        return self.content.get(key)


def read_tokenizer_file(path: Path) -> TokenizerFile:
    """Read tokenizer.json. Raises InputError if it is not a JSON object."""
    return TokenizerFile(path, read_json(path, LARGEST))


def read_vocabulary(folder: Path) -> tuple[Vocabulary, Encode]:
    """Read a folder's tokenizer.json and tokenizer_config.json; return the vocabulary and the source's encoding.

    Raises InputError for a broken or unsupported tokenizer, and for a pre-tokenizer that llama.cpp has no name for: a
    wrong guess would silently give wrong tokens.
    """
    path = folder / "tokenizer.json"
    try:
        vocabulary = _read(read_tokenizer_file(path))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path} has an unexpected structure: {type(error).__name__} {error}", _ONLY) from None
    tokenizer = _library(path)
    marked = tokenizer.encode("a").ids  # with BOS and EOS
    settings = read_settings(folder)
    special = specials(settings, folder, vocabulary.tokens)
    bos, eos = special.get("bos"), special.get("eos")
    encode = encoder(path)
    plain = encode("a")
    return (
        replace(
            vocabulary,
            special={**vocabulary.special, **special},
            adds_bos=_flag(settings, "add_bos_token", bos is not None and marked[:1] == [bos] != plain[:1]),
            adds_eos=_flag(settings, "add_eos_token", eos is not None and marked[-1:] == [eos] != plain[-1:]),
            template=read_template(folder, settings),
        ),
        encode,
    )


def read_settings(folder: Path) -> TokenizerSettings:
    """Read tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    return TokenizerSettings(read_json(path, LARGEST) if path.is_file() else {})


def specials(settings: TokenizerSettings, folder: Path, tokens: Sequence[str]) -> dict[str, int]:
    """Return the ids of the special tokens, by text in tokenizer_config.json, else by number in config.json."""
    config = read_json(folder / "config.json", LARGEST)
    generation = folder / "generation_config.json"
    ends = read_json(generation, LARGEST).get("eos_token_id") if generation.is_file() else None
    by_role: dict[str, int] = {}
    numbers = {text: number for number, text in enumerate(tokens)}
    for name, key in {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}.items():
        entry = settings.get(key)
        text = entry.get("content") if isinstance(entry, dict) else entry
        number: Any = numbers.get(text) if isinstance(text, str) else None
        if number is None:
            listed: Any = config.get(f"{key}_id")
            number = listed[0] if isinstance(listed, list) and listed else listed
        if type(number) is int and 0 <= number < len(tokens):
            by_role[name] = number
    others = [one for one in ends if one != by_role.get("eos")] if isinstance(ends, list) else []
    if others and type(others[0]) is int and 0 <= others[0] < len(tokens):
        by_role["eot"] = others[0]
    return by_role


def read_template(folder: Path, settings: TokenizerSettings) -> str | None:
    """Return the chat template; None if there is none.

    It is in chat_template.jinja, tokenizer_config.json (the default one), or the processor's chat_template.json.
    """
    path, older = folder / "chat_template.jinja", folder / "chat_template.json"
    if path.is_file():
        check_size(path, _MAX_TEMPLATE)
        return path.read_text(encoding="utf-8", errors="replace")
    template: Any = settings.get("chat_template")
    if not template and older.is_file():
        template = read_json(older, _MAX_TEMPLATE).get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None


def _flag(settings: TokenizerSettings, key: str, default: bool) -> bool:
    value = settings.get(key)
    return value if isinstance(value, bool) else default


def encoder(source: Path | TokenizerFile) -> Encode:
    """Return the encoding of a tokenizer.json by the `tokenizers` library, without BOS and EOS."""
    tokenizer = _library(source)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _library(source: Path | TokenizerFile) -> Any:
    path = source if isinstance(source, Path) else source.path
    Requirement("tokenizers", "gguf").check(path.name)
    with loading(path, "a tokenizer"):
        from tokenizers import Tokenizer

        if isinstance(source, Path):
            tokenizer = Tokenizer.from_file(str(source))
        else:
            tokenizer = Tokenizer.from_str(json.dumps(source.content))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _read(document: TokenizerFile) -> Vocabulary:
    model, path = document.model, document.path
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise InputError(f"{path} is a tokenizer of the type {kind}, which is not supported", _ONLY)
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        raise InputError(f"{path} has subword prefixes, word suffixes or dropout, which are not supported", _ONLY)
    tokens = _tokens(model["vocab"], document.added, path)
    merges = [_pair(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        return _sentencepiece(document, tokens, merges)
    return _byte_level(document, tokens, merges)


def _tokens(vocabulary: Mapping[str, int], added: Mapping[int, AddedToken], path: Path) -> list[str | None]:
    """Return the token of every id; None for a gap."""
    numbers = [*vocabulary.values(), *added]
    count = max(numbers) + 1
    if not all(type(number) is int and number >= 0 for number in numbers) or count > _MAX_TOKENS:
        what = f"{path} numbers its tokens in a way that edge does not support"
        raise InputError(what, f"what works: whole numbers from 0 to {_MAX_TOKENS - 1}")
    tokens: list[str | None] = [None] * count
    for text, number in vocabulary.items():
        tokens[number] = text
    for number, one in added.items():
        tokens[number] = one.text
    return tokens


def _pair(merge: Any) -> tuple[str, str]:
    """Return the left and right piece of a merge; older files have both in one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return str(left), str(right)


def _kind(number: int, token: str | None, added: Mapping[int, AddedToken]) -> int:
    if token is None:
        return UNUSED
    if number in added:
        return CONTROL if added[number].is_special else USER_DEFINED
    return NORMAL


def _sentencepiece(
    document: TokenizerFile, tokens: Sequence[str | None], merges: Sequence[tuple[str, str]]
) -> Vocabulary:
    """Build the vocabulary. The file has no scores; the negative rank of a piece's merge gives the same merge order."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    unknown, added = document.model.get("unk_token"), document.added
    types = [_kind(number, token, added) for number, token in enumerate(tokens)]
    for number, token in enumerate(tokens):
        if token is not None and token == unknown:
            types[number] = UNKNOWN
        elif types[number] == NORMAL and token and len(token) == 6 and token.startswith("<0x"):
            types[number] = BYTE
    return Vocabulary(
        kind="llama",
        # User-defined tokens are matched in the original text, with its spaces.
        tokens=tuple(
            _name(n, t).replace(SPACE, " ") if types[n] == USER_DEFINED else _name(n, t) for n, t in enumerate(tokens)
        ),
        types=tuple(types),
        scores=tuple(-float(ranks[token]) if token in ranks else _unranked(token) for token in tokens),
        special={"unknown": types.index(UNKNOWN)} if UNKNOWN in types else {},
        adds_space=_adds_space(document),
    )


def _unranked(token: str | None) -> float:
    """Return the score of a piece without a merge: merging starts from single characters, others are unreachable."""
    return 0.0 if token is not None and len(token) == 1 else UNREACHED


def _name(number: int, token: str | None) -> str:
    return f"[PAD{number}]" if token is None else token


def _adds_space(document: TokenizerFile) -> bool:
    """Return whether a space is added before a text, by a normalizer (files of 2023) or by Metaspace."""
    before, path = False, document.path
    for one in document.parts("normalizer", "normalizers"):
        kind = one["type"]
        if kind == "Prepend" and one["prepend"] == SPACE:
            before = True
        elif kind != "Replace" or one["pattern"].get("String") != " " or one["content"] != SPACE:
            raise InputError(f"{path} normalizes texts with {kind}, which llama.cpp does not support", _ONLY)
    for one in document.parts("pre_tokenizer", "pretokenizers"):
        if one["type"] == "Split" and one["pattern"].get("String") == " ":
            continue  # Gemma's, which has no effect, because no spaces are left
        if one["type"] != "Metaspace" or one.get("split"):
            raise InputError(f"{path} also splits texts with {one['type']}, which llama.cpp does not support", _ONLY)
        before = one.get("prepend_scheme", "always") != "never" and one.get("add_prefix_space", True)
    return before


def _byte_level(document: TokenizerFile, tokens: Sequence[str | None], merges: Sequence[tuple[str, str]]) -> Vocabulary:
    path, added = document.path, document.added
    for one in document.parts("normalizer", "normalizers"):
        if one["type"] != "NFC":  # Qwen's; typed texts are NFC already
            raise InputError(f"{path} normalizes texts with {one['type']}, which llama.cpp does not support", _ONLY)
    if any(" " in left or " " in right for left, right in merges):
        raise InputError(f"{path} is not a byte-level BPE: its merges contain spaces", _ONLY)
    return Vocabulary(
        kind="gpt2",
        tokens=tuple(_name(number, token) for number, token in enumerate(tokens)),
        types=tuple(_kind(number, token, added) for number, token in enumerate(tokens)),
        merges=tuple(f"{left} {right}" for left, right in merges),
        pre=_pre(document),
    )


def pre_of(document: TokenizerFile) -> str | None:
    """Return llama.cpp's name for the pre-tokenizer of a byte-level BPE; None for other tokenizers, or if unknown."""
    try:
        if document.model.get("type", "BPE") != "BPE" or document.model.get("byte_fallback"):
            return None
        return _pre(document)
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def is_sentencepiece(document: TokenizerFile) -> bool:
    """Return whether it is SentencePiece's BPE in the form of tokenizer.json."""
    model = document.content.get("model")
    return isinstance(model, dict) and model.get("type", "BPE") == "BPE" and bool(model.get("byte_fallback"))


def _pre(document: TokenizerFile) -> str:
    path = document.path
    cutting: list[str] = []
    for one in document.parts("pre_tokenizer", "pretokenizers"):
        kind = one["type"]
        if kind == "Split" and "Regex" in one["pattern"] and one.get("behavior") == "Isolated":
            cutting += ["regex", one["pattern"]["Regex"]]
        elif kind == "Digits" and one.get("individual_digits"):
            cutting.append("digits")
        elif kind == "ByteLevel" and not one.get("add_prefix_space"):
            cutting += ["regex", _GPT2] if one.get("use_regex", True) else []
        else:
            cutting.append(f"{kind} {json.dumps(one, sort_keys=True)}")
    ignores = bool(document.model.get("ignore_merges"))
    name = PRE.get((tuple(cutting), ignores))  # type: ignore[call-overload,unused-ignore] # tuples of any length
    if name is None:
        how = " then ".join(cutting)[:200] or "nothing"
        whole = ", whole words first" if ignores else ""
        what = f"{path} splits texts into words by {how}{whole}, which edge does not support"
        raise InputError(what, f"what works: {', '.join(PRE.values())}; a wrong guess would silently give wrong tokens")
    return name
