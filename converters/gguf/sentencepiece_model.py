"""Read `tokenizer.model`, SentencePiece's own file, as a `Vocabulary`.

Fields by number: src/sentencepiece_model.proto of github.com/google/sentencepiece.
"""

from __future__ import annotations

from pathlib import Path

from converters.gguf.vocabulary import Vocabulary
from converters.wire.buffer import ByteSource
from converters.wire.protobuf import Message
from runtimes.errors import InputError

_BPE = 2
_NAMES = {"unknown": (40, 0), "bos": (41, 1), "eos": (42, 2), "padding": (43, -1)}


def read_model(path: Path) -> Vocabulary:
    """Read pieces, scores and types. Raises InputError for a broken file, or one that is not BPE with byte fallback."""
    model = Message(ByteSource.open(path))
    pieces, trainer, normalizer = model.messages(1), model.message(2), model.message(3)
    if not pieces or trainer is None:
        what = f"{path} is not a SentencePiece model: it has no pieces or no settings of the trainer"
        raise InputError(what, "pass the tokenizer.model that belongs to the model")
    if trainer.number(3, 1) != _BPE or not trainer.number(35):
        what = f"{path} is not a SentencePiece BPE with byte fallback"
        raise InputError(what, "what works: the tokenizers of LLaMA 1 and 2 and of Mistral")
    special = {name: trainer.number(*place) for name, place in _NAMES.items()}
    return Vocabulary(
        kind="llama",
        tokens=tuple(piece.text(1) for piece in pieces),
        types=tuple(piece.number(3, 1) for piece in pieces),
        scores=tuple(piece.real(2) for piece in pieces),
        special={name: number for name, number in special.items() if 0 <= number < len(pieces)},
        adds_bos=True,
        adds_space=normalizer is None or bool(normalizer.number(3, 1)),
    )
