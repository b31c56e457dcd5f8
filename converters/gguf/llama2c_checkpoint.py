"""Read a checkpoint of karpathy/llama2.c (`stories260K.bin`) and its tokenizer (`tok512.bin`) in the same folder.

Formats: `checkpoint_init_weights` in run.c (version 0) and tokenizer.py of github.com/karpathy/llama2.c.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from converters.gguf.hyperparameters import MAX_LAYERS, MAX_SIZE, Network
from converters.gguf.language_model import LanguageModel
from converters.gguf.vocabulary import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, Vocabulary, sentencepiece
from runtimes.arrays import Array
from runtimes.errors import InputError

_HEADER = struct.Struct("<7i")
_MAX_TOKENIZER = 64 * 2**20  # bytes; one of 32,000 tokens has 0.4 MB
_FIRST_PIECE = 259  # after unknown, BOS, EOS and 256 bytes
_VERSION_0 = "choose a version 0 checkpoint (.bin) of llama2.c"
_ORDER = (
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_down.weight",
    "ffn_up.weight",
)


def read_checkpoint(model: Path) -> LanguageModel:
    """Read a checkpoint. Raises InputError if it is broken, or if the tokenizer is not in the same folder."""
    network = read_header(model)
    vocabulary = _vocabulary(_tokenizer(model, network.vocabulary), network.vocabulary)
    weights = _Checkpoint(model, network)
    encode = sentencepiece(vocabulary)
    return LanguageModel(name=model.stem, network=network, vocabulary=vocabulary, weights=weights, encode=encode)


def read_header(path: Path) -> Network:
    """Read the network from a checkpoint's first 28 bytes. Raises InputError if the file is too short for it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    if len(head) < _HEADER.size:
        raise InputError(f"{path} is not a checkpoint of llama2.c: it has {size} bytes", _VERSION_0)
    width, hidden, layers, heads, kv_heads, vocabulary, context = _HEADER.unpack(head)
    sizes = (width, hidden, heads, kv_heads, abs(vocabulary), context)
    if not 1 <= layers <= MAX_LAYERS or not all(1 <= one <= MAX_SIZE for one in sizes) or width % heads:
        raise InputError(f"{path} is not a checkpoint of llama2.c: its header has impossible sizes", _VERSION_0)
    network = Network(
        architecture="llama",
        layers=layers,
        width=width,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head=width // heads,
        vocabulary=abs(vocabulary),
        context=context,
        epsilon=1e-5,
        rope_base=10000.0,
        halves=False,
        tied=vocabulary > 0,  # a negative size means that the classifier has separate weights
    )
    needed = max(place + 4 * int(np.prod(shape)) for place, shape in _places(network).values())
    if size < needed:
        what = f"{path} has {size:,} bytes, but its header requires {needed:,}"
        raise InputError(what, "compare its size and sha256 with the original's")
    return network


class _Checkpoint:
    """Weights in one float32 file, grouped by kind over all layers."""

    def __init__(self, path: Path, network: Network) -> None:
        self._path, self._placed = path, _places(network)

    def names(self) -> set[str]:
        """See `Weights`."""
        return set(self._placed)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        return self._placed[name][1]

    def load(self, name: str) -> Array:
        """See `Weights`."""
        start, shape = self._placed[name]
        with self._path.open("rb") as stream:
            stream.seek(start)
            return np.fromfile(stream, "<f4", int(np.prod(shape))).reshape(shape)


def _places(network: Network) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return the start and the shape of each tensor."""
    shapes, at = network.tensors(), _HEADER.size
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    layers = range(network.layers)
    names = ["token_embd.weight", *(f"blk.{i}.{kind}" for kind in _ORDER for i in layers), "output_norm.weight"]
    for name in names:
        places[name] = (at, shapes[name])
        at += 4 * int(np.prod(shapes[name]))
    if not network.tied:  # after the rotations' cosines and sines, which are recomputed
        places["output.weight"] = (at + 4 * network.context * network.head, shapes["output.weight"])
    return places


def _tokenizer(model: Path, size: int) -> Path:
    """Find the tokenizer in a checkpoint's folder: tok512.bin or tokenizer.bin."""
    names = (f"tok{size}.bin", "tokenizer.bin")
    path = next((model.with_name(name) for name in names if model.with_name(name).is_file()), None)
    if path is None:
        raise InputError(
            f"{model} has no tokenizer in its folder", f"put {names[0]} or {names[1]} into the same folder"
        )
    return path


def _vocabulary(path: Path, size: int) -> Vocabulary:
    mismatch = InputError(
        f"{path} is not a tokenizer of llama2.c for {size} tokens",
        f"use the tokenizer that the model was trained with, as tok{size}.bin",
    )
    if path.stat().st_size > _MAX_TOKENIZER or size < _FIRST_PIECE:
        raise mismatch
    content, at = path.read_bytes(), 4
    tokens, scores = [], []
    try:
        for _ in range(size):
            score, length = struct.unpack_from("<fi", content, at)
            if length < 0 or at + 8 + length > len(content):
                raise mismatch
            tokens.append(content[at + 8 : at + 8 + length].decode("utf-8"))
            scores.append(float(score))
            at += 8 + length
    except (struct.error, UnicodeDecodeError):
        raise mismatch from None
    marks = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [token.replace(" ", SPACE) for token in tokens[_FIRST_PIECE:]]
    return Vocabulary(
        kind="llama",
        tokens=(*marks, *pieces),
        types=(UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)),
        scores=tuple(scores),
        # In the training data BOS separates the stories, so it ends a text too.
        special={"unknown": 0, "bos": 1, "eos": 2, "eot": 1},
        adds_bos=True,
        adds_space=True,
    )
