"""`tokenizer.json` of Hugging Face as a `Vocabulary`: SentencePiece's BPE and byte-level BPE, nothing guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from converters.gguf.weights import read_json
from converters.quiet import loading
from converters.steps import check_library
from runtimes.errors import InputError

LARGEST = 256 * 2**20
_MOST_TOKENS = 2**22
_BROKEN = "copy or download the folder again"
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
# How a text is cut into words, and whether whole words are looked up before merging → llama.cpp's word for it.
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


def read_vocabulary(folder: Path) -> tuple[Vocabulary, Encode]:
    """The tokeniser of a folder's tokenizer.json and tokenizer_config.json, and the source's own way to encode.

    InputError for a broken one, for one of another kind, and for a way of cutting words that llama.cpp has no word
    for: a wrong guess would give wrong tokens without a complaint.
    """
    path = folder / "tokenizer.json"
    document = read_json(path, LARGEST)
    try:
        vocabulary = _read(document, path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is broken: {type(error).__name__} {error}", _BROKEN) from None
    encode, begins, ends = _source(path)
    settings = read_settings(folder)
    special = specials(settings, folder, vocabulary.tokens)
    bos, eos = special.get("bos"), special.get("eos")
    plain = encode("a")
    return (
        replace(
            vocabulary,
            special={**vocabulary.special, **special},
            adds_bos=_said(settings, "add_bos_token", bos is not None and begins[:1] == [bos] != plain[:1]),
            adds_eos=_said(settings, "add_eos_token", eos is not None and ends[-1:] == [eos] != plain[-1:]),
            template=read_template(folder, settings),
        ),
        encode,
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; empty where there is none."""
    path = folder / "tokenizer_config.json"
    return read_json(path, LARGEST) if path.is_file() else {}


def specials(settings: Mapping[str, Any], folder: Path, tokens: Sequence[str]) -> dict[str, int]:
    """The ids of the tokens with a task: told by text in tokenizer_config.json, else by number in config.json."""
    config = read_json(folder / "config.json", LARGEST)
    generation = folder / "generation_config.json"
    asked = read_json(generation, LARGEST).get("eos_token_id") if generation.is_file() else None
    found: dict[str, int] = {}
    numbers = {text: number for number, text in enumerate(tokens)}
    for name, key in {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}.items():
        said = settings.get(key)
        text = said.get("content") if isinstance(said, dict) else said
        number: Any = numbers.get(text) if isinstance(text, str) else None
        if number is None:
            listed: Any = config.get(f"{key}_id")
            number = listed[0] if isinstance(listed, list) and listed else listed
        if type(number) is int and 0 <= number < len(tokens):
            found[name] = number
    others = [one for one in asked if one != found.get("eos")] if isinstance(asked, list) else []
    if others and type(others[0]) is int and 0 <= others[0] < len(tokens):
        found["eot"] = others[0]
    return found


def read_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, else the default one of tokenizer_config.json, else None."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        if path.stat().st_size > 2**20:
            raise InputError(f"{path} is larger than any chat template", "check where the folder comes from")
        return path.read_text(encoding="utf-8", errors="replace")
    said = settings.get("chat_template")
    if isinstance(said, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get("default")
    return said if isinstance(said, str) and said else None


def _said(settings: Mapping[str, Any], key: str, otherwise: bool) -> bool:
    said = settings.get(key)
    return said if isinstance(said, bool) else otherwise


def _source(path: Path) -> tuple[Encode, list[int], list[int]]:
    """The `tokenizers` library's encoding, and what it makes of "a" with its marks of beginning and end."""
    check_library("tokenizers", path.name)
    with loading(path, "a tokenizer"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        marked = tokenizer.encode("a").ids
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), marked, marked


def _read(document: Mapping[str, Any], path: Path) -> Vocabulary:
    model = document["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise InputError(f"{path} is a tokenizer of the kind {kind}, which is not converted", _ONLY)
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        raise InputError(f"{path} marks parts of words, or drops merges by chance; that is not converted", _ONLY)
    tokens, added = _tokens(model["vocab"], document.get("added_tokens") or [], path)
    merges = [_pair(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        return _sentencepiece(document, tokens, added, merges, path)
    return _byte_level(document, tokens, added, merges, path)


def _tokens(
    vocabulary: Mapping[str, int], added: Sequence[Mapping[str, Any]], path: Path
) -> tuple[list[str | None], dict[int, Mapping[str, Any]]]:
    """The token of every id, None for a gap, and the added ones by id."""
    extra = {int(one["id"]): one for one in added}
    numbers = [*vocabulary.values(), *extra]
    count = max(numbers) + 1
    if not all(type(number) is int and number >= 0 for number in numbers) or count > _MOST_TOKENS:
        raise InputError(f"{path} is broken: its tokens are not numbered 0, 1, 2 ...", _BROKEN)
    tokens: list[str | None] = [None] * count
    for text, number in vocabulary.items():
        tokens[number] = text
    for number, one in extra.items():
        tokens[number] = str(one["content"])
    return tokens, extra


def _pair(merge: Any) -> tuple[str, str]:
    """Left and right; older files hold both in one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return str(left), str(right)


def _kind(number: int, token: str | None, added: Mapping[int, Mapping[str, Any]]) -> int:
    if token is None:
        return UNUSED
    if number in added:
        return CONTROL if added[number].get("special") else USER_DEFINED
    return NORMAL


def _sentencepiece(
    document: Mapping[str, Any],
    tokens: Sequence[str | None],
    added: Mapping[int, Mapping[str, Any]],
    merges: Sequence[tuple[str, str]],
    path: Path,
) -> Vocabulary:
    """Scores are not in this file: minus the rank of the merge that makes a piece keeps the order of joining."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    unknown = document["model"].get("unk_token")
    types = [_kind(number, token, added) for number, token in enumerate(tokens)]
    for number, token in enumerate(tokens):
        if token is not None and token == unknown:
            types[number] = UNKNOWN
        elif types[number] == NORMAL and token and len(token) == 6 and token.startswith("<0x"):
            types[number] = BYTE
    return Vocabulary(
        kind="llama",
        # A user's own token is looked for in the text as it stands, spaces and all.
        tokens=tuple(
            _name(n, t).replace(SPACE, " ") if types[n] == USER_DEFINED else _name(n, t) for n, t in enumerate(tokens)
        ),
        types=tuple(types),
        scores=tuple(-float(ranks[token]) if token in ranks else _unranked(token) for token in tokens),
        special={"unknown": types.index(UNKNOWN)} if UNKNOWN in types else {},
        adds_space=_adds_space(document, path),
    )


def _unranked(token: str | None) -> float:
    """Single characters and bytes are where joining starts from; a longer piece without a merge is never made."""
    return 0.0 if token is not None and len(token) == 1 else UNREACHED


def _name(number: int, token: str | None) -> str:
    return f"[PAD{number}]" if token is None else token


def _adds_space(document: Mapping[str, Any], path: Path) -> bool:
    """Whether a space is put before a text: by a normalizer (files of 2023) or by Metaspace."""
    before = False
    for one in _parts(document.get("normalizer"), "normalizers"):
        kind = one["type"]
        if kind == "Prepend" and one["prepend"] == SPACE:
            before = True
        elif kind != "Replace" or one["pattern"].get("String") != " " or one["content"] != SPACE:
            raise InputError(f"{path} changes texts by {kind} before cutting them, which llama.cpp does not", _ONLY)
    for one in _parts(document.get("pre_tokenizer"), "pretokenizers"):
        if one["type"] != "Metaspace" or one.get("split"):
            raise InputError(f"{path} cuts texts by {one['type']} beside SentencePiece's pieces", _ONLY)
        before = one.get("prepend_scheme", "always") != "never" and one.get("add_prefix_space", True)
    return before


def _byte_level(
    document: Mapping[str, Any],
    tokens: Sequence[str | None],
    added: Mapping[int, Mapping[str, Any]],
    merges: Sequence[tuple[str, str]],
    path: Path,
) -> Vocabulary:
    for one in _parts(document.get("normalizer"), "normalizers"):
        if one["type"] != "NFC":  # Qwen's; texts are NFC where people type them
            raise InputError(f"{path} changes texts by {one['type']} before cutting them", _ONLY)
    if any(" " in left or " " in right for left, right in merges):
        raise InputError(f"{path} is no byte-level BPE: its merges hold spaces", _ONLY)
    return Vocabulary(
        kind="gpt2",
        tokens=tuple(_name(number, token) for number, token in enumerate(tokens)),
        types=tuple(_kind(number, token, added) for number, token in enumerate(tokens)),
        merges=tuple(f"{left} {right}" for left, right in merges),
        pre=_pre(document, path),
    )


def _pre(document: Mapping[str, Any], path: Path) -> str:
    cutting: list[str] = []
    for one in _parts(document.get("pre_tokenizer"), "pretokenizers"):
        kind = one["type"]
        if kind == "Split" and "Regex" in one["pattern"] and one.get("behavior") == "Isolated":
            cutting += ["regex", one["pattern"]["Regex"]]
        elif kind == "Digits" and one.get("individual_digits"):
            cutting.append("digits")
        elif kind == "ByteLevel" and not one.get("add_prefix_space"):
            cutting += ["regex", _GPT2] if one.get("use_regex", True) else []
        else:
            cutting.append(f"{kind} {json.dumps(one, sort_keys=True)}")
    ignores = bool(document["model"].get("ignore_merges"))
    found = PRE.get((tuple(cutting), ignores))  # type: ignore[call-overload,unused-ignore] # tuples of any length
    if found is None:
        how = " then ".join(cutting)[:200] or "nothing"
        whole = ", whole words first" if ignores else ""
        what = f"{path} cuts texts into words by {how}{whole}; llama.cpp's word for that is not known here"
        raise InputError(what, f"known: {', '.join(PRE.values())}; a guess would give wrong tokens without a complaint")
    return found


def _parts(node: Any, key: str) -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as the list of its parts; byte-level BPE needs `Sequence` for more than one."""
    if not node:
        return []
    return list(node[key]) if node["type"] == "Sequence" else [node]
