"""Read Meta's `tokenizer.model` of LLaMA 3: byte-level BPE, one line per piece, in base64, with its rank.

Pieces are merged as in tiktoken (`_byte_pair_merge` in src/lib.rs of github.com/openai/tiktoken): the two neighbors
whose merged piece has the lowest rank first. The special tokens after the pieces: models/llama3 of
github.com/meta-llama/llama-models.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from converters.base import Requirement
from converters.gguf.tokenizer_json import LLAMA_3_WORDS
from converters.gguf.vocabulary import CONTROL, NORMAL, Encode, Vocabulary
from converters.wire.buffer import ByteSource
from runtimes.errors import InputError

LARGEST = 64 * 2**20  # bytes; LLaMA 3's has 2.2 MB
_COMPARE = "compare its size and sha256 with the original's; what works: Meta's tokenizers of LLaMA 3"
_SPECIAL_TOKENS = 256
_BEGINNING = ("<|begin_of_text|>", "<|end_of_text|>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
Ranks = dict[bytes, int]


def is_ranks(path: Path) -> bool:
    """Return whether the file begins like LLaMA 3's, with a piece in base64 and rank 0."""
    with path.open("rb") as stream:
        return stream.readline(512).rstrip().endswith(b"= 0")


def read_ranks(path: Path, *, is_3_1: bool) -> tuple[Vocabulary, Encode]:
    """Return the vocabulary with its special tokens, and its encoding. Raises InputError for a broken file."""
    ranks = _ranks(path)
    pieces = sorted(ranks, key=ranks.__getitem__)
    letters = _letters()
    spelled = ["".join(letters[byte] for byte in piece) for piece in pieces]
    special = _special_tokens(is_3_1)
    joined = (_join(ranks, piece, ranks[piece]) for piece in pieces if len(piece) > 1)
    vocabulary = Vocabulary(
        kind="gpt2",
        tokens=(*spelled, *special),
        types=(*(NORMAL for _ in spelled), *(CONTROL for _ in special)),
        # A piece that is not a merge of two others only matches whole words.
        merges=tuple(" ".join(spelled[ranks[part]] for part in parts) for parts in joined if len(parts) == 2),
        pre="llama-bpe",
        special={
            "bos": len(pieces),
            "eos": len(pieces) + 1,
            "eot": len(pieces) + special.index("<|eot_id|>"),
        },
        adds_bos=True,
    )
    return vocabulary, _encode(ranks)


def _ranks(path: Path) -> Ranks:
    source = ByteSource.open(path)
    if len(source.view) > LARGEST:
        what = f"{path} has {len(source.view):,} bytes; edge reads tokenizers of at most {LARGEST:,}"
        raise InputError(what, _COMPARE)
    ranks: Ranks = {}
    for number, line in enumerate(bytes(source.view).split(b"\n")):
        if not line.strip():
            continue
        try:
            piece, rank = line.split()
            if int(rank) != len(ranks):
                raise ValueError
            ranks[base64.b64decode(piece, validate=True)] = len(ranks)
        except (ValueError, binascii.Error):
            what = f"{path}: line {number + 1} is not a piece in base64 and the rank {len(ranks)}, as in LLaMA 3's file"
            raise InputError(what, _COMPARE) from None
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise InputError(f"{path} lacks some of the 256 single bytes, which byte-level BPE starts from", _COMPARE)
    return ranks


def _join(ranks: Ranks, piece: bytes, limit: int) -> list[bytes]:
    """Return the parts of a piece after all merges with a rank below `limit`."""
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 1:
        rank, place = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if rank >= limit:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _encode(ranks: Ranks) -> Encode:
    Requirement("tokenizers", "gguf").check("the tokenizer of LLaMA 3")
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    words = Split(Regex(LLAMA_3_WORDS), "isolated")

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for word, _ in words.pre_tokenize_str(text):
            piece = word.encode()
            parts = [piece] if piece in ranks else _join(ranks, piece, len(ranks))
            ids += [ranks[part] for part in parts]
        return ids

    return encode


def _special_tokens(is_3_1: bool) -> list[str]:
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(_SPECIAL_TOKENS))
    first = [*_BEGINNING, next(reserved), next(reserved)]
    if is_3_1:
        first += ["<|finetune_right_pad_id|>", next(reserved), *_HEADERS, "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    else:
        first += [next(reserved), next(reserved), *_HEADERS, next(reserved), "<|eot_id|>"]
    return first + [next(reserved) for _ in range(_SPECIAL_TOKENS - len(first))]


def _letters() -> list[str]:
    """Return the letter of each byte in byte-level BPE (`bytes_to_unicode` of github.com/openai/gpt-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
