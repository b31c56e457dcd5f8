"""The vocabulary of a tokenizer, as stored in a GGUF file, and SentencePiece's encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# Kinds of tokens, as numbered in GGUF (llama_token_type) and in SentencePiece.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # SentencePiece's character for a space

# Text → token ids, without BOS, by the source's own rules.
Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The vocabulary of a tokenizer.

    kind: "llama" (SentencePiece's BPE) or "gpt2" (byte-level BPE).
    tokens, types: The text and type of each token.
    scores: SentencePiece: pieces with a higher score are merged first. Empty for byte-level BPE.
    merges: Byte-level BPE: "left right", the first merge first.
    pre: llama.cpp's name of the pre-tokenizer, which splits a text into words for byte-level BPE.
    special: {"bos": id, "eos": id, "unknown": id, "padding": id, "eot": id}, as far as there are such tokens.
    """

    kind: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    pre: str = "default"
    special: Mapping[str, int] = field(default_factory=dict)
    adds_bos: bool = False
    adds_eos: bool = False
    adds_space: bool = False
    template: str | None = None

    def padded(self, rows: int) -> Vocabulary:
        """Return the vocabulary with names for the additional rows of the embedding."""
        missing = range(len(self.tokens), rows)
        return replace(
            self,
            tokens=(*self.tokens, *(f"[PAD{number}]" for number in missing)),
            types=(*self.types, *(UNUSED for _ in missing)),
            scores=(*self.scores, *(UNREACHED for _ in missing)) if self.scores else (),
        )


UNREACHED = -1e6  # the score of a piece that no merge produces


def sentencepiece(vocabulary: Vocabulary) -> Encode:
    """Return the encoding of SentencePiece's BPE: repeatedly merge the two neighbors with the best score.

    Source: src/bpe_model.cc of github.com/google/sentencepiece; unknown characters become their bytes.
    """
    ids = {token: number for number, token in enumerate(vocabulary.tokens) if vocabulary.types[number] == NORMAL}
    octets = {token: number for number, token in enumerate(vocabulary.tokens) if vocabulary.types[number] == BYTE}
    unknown = vocabulary.special.get("unknown", 0)

    def encode(text: str) -> list[int]:
        if not text:
            return []
        pieces = list((" " + text if vocabulary.adds_space else text).replace(" ", SPACE))
        while True:
            best, place = -float("inf"), -1
            for index in range(len(pieces) - 1):
                number = ids.get(pieces[index] + pieces[index + 1])
                if number is not None and vocabulary.scores[number] > best:
                    best, place = vocabulary.scores[number], index
            if place < 0:
                break
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        tokens: list[int] = []
        for piece in pieces:
            if piece in ids:
                tokens.append(ids[piece])
            else:
                tokens += [octets.get(f"<0x{byte:02X}>", unknown) for byte in piece.encode()]
        return tokens

    return encode
