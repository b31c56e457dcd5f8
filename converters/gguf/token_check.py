"""Check that llama.cpp tokenizes like the source: many languages, random bytes, a chat, and every added token."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.gguf.source_tokenizer import SourceTokenizer, check_added
from runtimes.errors import ProofError
from runtimes.llm.session import TextSession

LANGUAGES = Path(__file__).with_name("languages.txt")
_RANDOM_TEXTS, _RANDOM_BYTES = 16, 64
_HINT = "llama.cpp does not support this tokenizer exactly, so its results would be wrong; use the source's own engine"


@dataclass(frozen=True, kw_only=True)
class TokenCheck:
    """What was compared and is equal.

    Attributes:
        texts: The number of plain texts.
        random: The number of texts of random bytes.
        added: The number of added tokens, each inside a text.
        chat: Whether the rendered chat template was compared.
        different: The number of texts that follow SentencePiece instead of tokenizer.json; see `SourceTokenizer.also`.
    """

    texts: int
    random: int
    added: int
    chat: bool
    different: int

    def as_dict(self) -> dict[str, int | bool]:
        """Return the manifest's entry."""
        return {
            "texts": self.texts,
            "random_texts": self.random,
            "added_tokens": self.added,
            "chat_template": self.chat,
            "as_sentencepiece": self.different,
        }


def check_tokens(source: SourceTokenizer, session: TextSession, chat: str | None) -> TokenCheck:
    """Compare all texts; `chat` is the rendered template. Raises ProofError for the first text with other ids."""
    whole = LANGUAGES.read_text(encoding="utf-8")
    plain = [*whole.splitlines(), whole]
    random = list(_random_texts(source))
    added = [_around(text) for text in check_added(source.added).values() if text]
    chats = [chat] if chat is not None else []
    different = sum(
        _compare(source, session, text, special)
        for texts, special in ((plain, False), (random, False), (added, True), (chats, True))
        for text in texts
    )
    _check_special(source, session)
    return TokenCheck(
        texts=len(plain), random=len(random), added=len(added), chat=chat is not None, different=different
    )


def _compare(source: SourceTokenizer, session: TextSession, text: str, special: bool) -> bool:
    """Return whether the ids are those of `source.also` instead of `source.encode`. Raises ProofError for neither."""
    expected, ids = source.encode(text), session.tokenize(text, special=special)
    if expected == ids:
        return False
    if source.also is not None and source.also(text) == ids:
        return True
    what = f"llama.cpp tokenizes {text[:40]!r} differently from the source: {_difference(expected, ids)}"
    raise ProofError(what, _HINT)


def _check_special(source: SourceTokenizer, session: TextSession) -> None:
    for name, token in (("bos", session.facts.bos), ("eos", session.facts.eos)):
        expected = source.special.get(name)
        if expected is not None and token is not None and expected != token and token not in session.facts.ends:
            raise ProofError(f"the token {name.upper()} of the result is {token}, that of the source {expected}", _HINT)


def _around(token: str) -> str:
    return f"Say {token} then{token}a {token}\n{token} end"


def _random_texts(source: SourceTokenizer) -> Iterator[str]:
    """Yield texts of random bytes; invalid UTF-8 becomes the replacement character.

    They are normalized if the source has a normalizer, because llama.cpp does not normalize texts.
    """
    generator = np.random.default_rng(0)
    for _ in range(_RANDOM_TEXTS):
        text = generator.integers(1, 256, _RANDOM_BYTES, np.uint8).tobytes().decode("utf-8", "replace")
        yield unicodedata.normalize("NFC", text) if source.is_nfc else text


def _difference(expected: Sequence[int], ids: Sequence[int]) -> str:
    place = next((i for i, pair in enumerate(zip(expected, ids, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(expected), len(ids)) if place is None else place
    return f"at {place}, {list(ids[place : place + 4])} instead of {list(expected[place : place + 4])}"
