"""A tokeniser in plain values: what a GGUF file holds of it, and SentencePiece's own way through a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# Kinds of tokens, as numbered in GGUF (llama_token_type) and in SentencePiece.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # SentencePiece's sign for a space

# Text → token ids, without BOS: how the source itself does it.
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Vocabulary:
    """One tokeniser.

    kind        "llama" (SentencePiece's BPE) or "gpt2" (byte-level BPE)
    pre         llama.cpp's word for the way in which byte-level BPE cuts a text into words
    scores      SentencePiece: the higher, the earlier two pieces are joined; empty for byte-level BPE
    merges      byte-level BPE: "left right", the earliest first
    special     {"bos": id, "eos": id, "unknown": id, "padding": id, "eot": id}, as far as there are such tokens
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
        """With names for the rows that the embedding has beyond the tokens."""
        missing = range(len(self.tokens), rows)
        return replace(
            self,
            tokens=(*self.tokens, *(f"[PAD{number}]" for number in missing)),
            types=(*self.types, *(UNUSED for _ in missing)),
            scores=(*self.scores, *(UNREACHED for _ in missing)) if self.scores else (),
        )


UNREACHED = -1e6  # the score of a piece to which no merge leads


def sentencepiece(vocabulary: Vocabulary) -> Encode:
    """SentencePiece's BPE: join the two neighbours whose piece scores best, the leftmost first, until none is known.

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
        found: list[int] = []
        for piece in pieces:
            if piece in ids:
                found.append(ids[piece])
            else:
                found += [octets.get(f"<0x{byte:02X}>", unknown) for byte in piece.encode()]
        return found

    return encode
