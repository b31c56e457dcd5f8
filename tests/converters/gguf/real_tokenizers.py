"""Real tokenizers without a network: the vocabularies of llama.cpp's tests, written as tokenizer.json.

The pre-tokenizers are those of the models' own tokenizer.json; llama.cpp's texts (.inp) and ids (.out) hold them.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

from converters.gguf.folder_model import converter_environment
from converters.gguf.tokenizer_json import LLAMA_3_WORDS

NAMES = ("gpt-2", "gpt-neox", "mpt", "llama-bpe", "qwen2", "falcon", "starcoder", "llama-spm", "phi-3")
_QWEN2_WORDS = LLAMA_3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_SEPARATOR = "\n__ggml_vocab_test__\n"


def models() -> Path:
    """The folder of the vocabularies, in the converter's environment."""
    return converter_environment().folder / "source" / "models"


@cache
def entries(name: str) -> dict[str, Any]:
    """The tokenizer's entries of a vocabulary; read here, as gguf's own reader takes half a minute for some."""
    content = (models() / f"ggml-vocab-{name}.gguf").read_bytes()
    at = 8

    def number(letter: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{letter}", content, at)
        at += struct.calcsize(letter)
        return value

    def text() -> str:
        nonlocal at
        length = number("Q")
        at += length
        return content[at - length : at].decode("utf-8")

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            inner, length = number("I"), number("Q")
            return [value(inner) for _ in range(length)]
        return number({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    _tensors, count = number("Q"), number("Q")
    found = {}
    for _ in range(count):
        key = text()
        found[key.removeprefix("tokenizer.ggml.")] = value(number("I"))
    return found


@cache
def tokenizer(name: str) -> Any:
    """The vocabulary `name` as the tokenizers library has it."""
    from tokenizers import AddedToken

    told = entries(name)
    found = _sentencepiece(told) if name in ("llama-spm", "phi-3") else _byte_level(name, told)
    added = [
        AddedToken(text, special=kind == _CONTROL, normalized=False, rstrip=name == "phi-3" and text not in _KEEPING)
        for text, kind in zip(told["tokens"], told["token_type"], strict=True)
        if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
    ]
    for token in added:
        found.add_special_tokens([token]) if token.special else found.add_tokens([token])
    if name == "llama-bpe":  # llama.cpp's converter knows it by what it makes of a text, with BOS
        from tokenizers.processors import TemplateProcessing

        bos = told["tokens"][told["bos_token_id"]]
        found.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, told["bos_token_id"])])
    return found


_KEEPING = ("<unk>", "<s>", "<|endoftext|>")  # of Phi-3: all others take the blanks behind them


def texts(name: str) -> list[tuple[str, list[int]]]:
    """llama.cpp's texts and their ids."""
    with (models() / f"ggml-vocab-{name}.gguf.inp").open(encoding="utf-8", newline="") as stream:
        given = stream.read().split(_SEPARATOR)
    wanted = (models() / f"ggml-vocab-{name}.gguf.out").read_text(encoding="utf-8").splitlines()
    return [(text, [int(one) for one in line.split()]) for text, line in zip(given, wanted, strict=False)]


def _byte_level(name: str, told: dict[str, Any]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Sequence, Split

    merges = [tuple(merge.split(" ", 1)) for merge in told["merges"]]
    vocabulary = {text: number for number, text in enumerate(told["tokens"])}
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=name == "llama-bpe"))
    plain = ByteLevel(add_prefix_space=False, use_regex=True)
    mapped = ByteLevel(add_prefix_space=False, use_regex=False)
    found.pre_tokenizer = {
        "llama-bpe": Sequence([Split(Regex(LLAMA_3_WORDS), "isolated"), mapped]),
        "qwen2": Sequence([Split(Regex(_QWEN2_WORDS), "isolated"), mapped]),
        "falcon": Sequence(
            [
                Punctuation("contiguous"),
                plain,
                Digits(individual_digits=False),
                Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        ),
        "starcoder": Sequence([Digits(individual_digits=True), plain]),
    }.get(name, plain)
    if name in ("gpt-neox", "mpt", "qwen2"):
        found.normalizer = normalizers.NFC()
    found.decoder = decoders.ByteLevel()
    return found


def _sentencepiece(told: dict[str, Any]) -> Any:
    """BPE with the merges that the scores mean: each pair of pieces whose joined piece exists, the best first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids = {text: number for number, text in enumerate(told["tokens"])}
    scores, merges = told["scores"], []
    for text, number in ids.items():
        if told["token_type"][number] != _NORMAL:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                merges.append((-scores[number], ids[left], ids[right], left, right))
    merges.sort()
    pairs = [(left, right) for _, _, _, left, right in merges]
    found = Tokenizer(models.BPE(vocab=ids, merges=pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return found
