"""The source's own tokenizer, for the proof: its encoding, added tokens and chat template."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.gguf.sentencepiece_model import read_model
from converters.gguf.tokenizer_json import (
    TokenizerFile,
    encoder,
    read_settings,
    read_template,
    read_tokenizer_file,
    specials,
)
from converters.gguf.vocabulary import Encode, sentencepiece
from converters.gguf.weights import check_size
from runtimes.errors import InputError

RWKV_WORLD = "rwkv_vocab_v20230424.txt"
_MAX_WORLD = 16 * 2**20  # bytes; the file has 1 MB
_PHI_3 = ("</s>", "<unk>", "<s>", "<|endoftext|>")  # see `converters.gguf.writer.general_name`
_MAX_ADDED = 1024  # that are checked individually; a few models reserve thousands that only differ in their number


@dataclass(frozen=True, kw_only=True)
class SourceTokenizer:
    """A source's tokenizer, as the proof needs it.

    Attributes:
        encode: Converts a text to ids without BOS; added tokens in the text are recognized.
        added: The texts of tokens that were added to the model's own, by id.
        special: Ids by role, as far as the source names them: "bos", "eos".
        bos: The text of BOS.
        eos: The text of EOS.
        template: The chat template.
        is_nfc: Whether texts are normalized first.
        strips_behind: Whether special tokens include the spaces after them, as in Phi-3.
        also: A second encoding that is also correct: llama.cpp follows SentencePiece where tokenizer.json differs
            from it.
    """

    encode: Encode
    added: Mapping[int, str]
    special: Mapping[str, int]
    bos: str = ""
    eos: str = ""
    template: str | None = None
    is_nfc: bool = False
    strips_behind: bool = False
    also: Encode | None = None

    @property
    def difference(self) -> str:
        """How texts encoded by `also` differ from those encoded by `encode`."""
        return (
            "a text that begins with a space, and text after an added token, starts with SentencePiece's own space, "
            "which the tokenizer.json of transformers 5 leaves out"
        )


def read_source_tokenizer(folder: Path, settings_folder: Path | None = None) -> SourceTokenizer:
    """Read the tokenizer of a Hugging Face folder. Raises InputError if there is none that runs without its own code.

    `settings_folder` has the other files if `folder` has only a tokenizer.json.
    """
    place = settings_folder or folder
    settings = read_settings(place)
    template = read_template(place, settings)
    if (folder / "tokenizer.json").is_file():
        document = read_tokenizer_file(folder / "tokenizer.json")
        try:
            added = {number: token.text for number, token in document.added.items()}
            tokens = _tokens(document, added)
            parts = str(document.content.get("normalizer"))
            strips = _strips_behind(document)
            also = _sentencepiece_variant(document)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = f"{folder / 'tokenizer.json'} has an unexpected structure: {type(error).__name__} {error}"
            raise InputError(what, "edge may not support this kind of tokenizer") from None
        special = specials(settings, place, tokens)
        return SourceTokenizer(
            encode=encoder(folder / "tokenizer.json"),
            added=added,
            special=special,
            bos=_text(tokens, special.get("bos")),
            eos=_text(tokens, special.get("eos")),
            template=template,
            is_nfc="NFC" in parts or "NFKC" in parts,
            strips_behind=strips,
            also=None if also is None else encoder(also),
        )
    if (folder / "tokenizer.model").is_file():
        vocabulary = read_model(folder / "tokenizer.model")
        special = {**vocabulary.special, **specials(settings, place, vocabulary.tokens)}
        return SourceTokenizer(
            encode=sentencepiece(vocabulary),
            added={},
            special=special,
            bos=_text(vocabulary.tokens, special.get("bos")),
            eos=_text(vocabulary.tokens, special.get("eos")),
            template=template,
        )
    if (folder / RWKV_WORLD).is_file():
        return SourceTokenizer(encode=_longest_match(folder / RWKV_WORLD), added={}, special={}, template=template)
    what = f"{folder} has no tokenizer.json or tokenizer.model"
    raise InputError(what, "edge needs one of these files; copy the tokenizer's files into the folder")


def check_added(added: Mapping[int, str]) -> dict[int, str]:
    """Select the added tokens that the proof checks: all, or an even selection if there are very many."""
    step = -(-len(added) // _MAX_ADDED) or 1
    return dict(sorted(added.items())[::step])


def _tokens(document: TokenizerFile, added: Mapping[int, str]) -> list[str]:
    """Return the token texts by id."""
    vocabulary = document.model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of piece and score, in order
        numbered = {number: str(piece) for number, (piece, _score) in enumerate(vocabulary)}
    else:
        numbered = {int(number): str(text) for text, number in vocabulary.items()}
    numbered |= added
    return [numbered.get(number, "") for number in range(max(numbered, default=-1) + 1)]


def _text(tokens: Any, number: int | None) -> str:
    return str(tokens[number]) if number is not None and number < len(tokens) else ""


def _sentencepiece_variant(document: TokenizerFile) -> TokenizerFile | None:
    """Return the tokenizer with a space before every part of a text, if its Metaspace only adds one to the first."""
    cutting = document.content.get("pre_tokenizer")
    if not isinstance(cutting, dict) or cutting.get("type") != "Metaspace" or cutting.get("split"):
        return None
    if cutting.get("prepend_scheme") not in ("first", "always"):
        return None
    space = cutting.get("replacement", "\u2581")
    own = document.parts("normalizer", "normalizers")
    own += [{"type": "Prepend", "prepend": space}]
    own += [{"type": "Replace", "pattern": {"String": " "}, "content": space}]
    changed = {"normalizer": {"type": "Sequence", "normalizers": own}, "pre_tokenizer": None}
    return TokenizerFile(document.path, {**document.content, **changed})


def _strips_behind(document: TokenizerFile) -> bool:
    """Whether the special tokens are like Phi-3's: it has all those that llama.cpp expects, and they strip spaces."""
    added = {token.text: token.strips_behind for token in document.added.values()}
    return all(token in added for token in _PHI_3) and added["</s>"]


def _longest_match(path: Path) -> Encode:
    """Return the encoding of RWKV's world tokenizer: the longest match at each position. Lines are `id literal length`.

    Source: rwkv_tokenizer.py of github.com/BlinkDL/ChatRWKV.
    """
    ids: dict[bytes, int] = {}
    check_size(path, _MAX_WORLD)
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            number, literal = line.split(" ", 1)[0], line.split(" ", 1)[1].rsplit(" ", 1)[0]
            value = ast.literal_eval(literal)  # only accepts literals, and runs no code
            ids[value.encode() if isinstance(value, str) else bytes(value)] = int(number)
        except (ValueError, SyntaxError, IndexError, TypeError, MemoryError, RecursionError):
            what = f"{path}: the line {line[:40]!r} is not a number, a Python literal and a length, as in RWKV's file"
            raise InputError(what, "compare its size and sha256 with the original's") from None
    longest = max(map(len, ids), default=0)

    def encode(text: str) -> list[int]:
        content, at, tokens = text.encode(), 0, []
        while at < len(content):
            length = next(n for n in range(longest, 0, -1) if content[at : at + n] in ids)
            tokens.append(ids[content[at : at + length]])
            at += length
        return tokens

    return encode
