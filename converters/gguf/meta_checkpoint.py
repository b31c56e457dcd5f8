"""Read Meta's own checkpoints: `consolidated.00.pth` …, params.json, tokenizer.model.

The axis along which a tensor is split over the files: `ColumnParallelLinear` and `RowParallelLinear` in llama/model.py
of github.com/meta-llama/llama.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.gguf.bpe_merges import is_ranks, read_ranks
from converters.gguf.detect import CONSOLIDATED
from converters.gguf.hyperparameters import MAX_LAYERS, MAX_SIZE, Network, RopeScaling
from converters.gguf.language_model import LanguageModel, check_complete, check_nothing_left, check_tokens
from converters.gguf.sentencepiece_model import read_model
from converters.gguf.vocabulary import Encode, Vocabulary, sentencepiece
from converters.gguf.weights import read_json
from converters.library_calls import loading
from runtimes.arrays import Array
from runtimes.artifact.json_fields import Fields, JsonObject
from runtimes.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
_OUTER = {
    "token_embd.weight": "tok_embeddings.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "output.weight",
}
# What `use_scaled_rope` means in LLaMA 3.1's model.py.
_SCALED = RopeScaling(kind="llama3", factor=8.0, original=8192, low_frequency=1.0, high_frequency=4.0)


def read_checkpoint(model: Path) -> LanguageModel:
    """Read the model of a folder; only tensors are unpickled. Raises InputError if it is broken."""
    files = sorted(model.glob(CONSOLIDATED)) if model.is_dir() else []
    if not files:
        raise InputError(f"{model} has no {CONSOLIDATED}", "choose the folder of Meta's checkpoint")
    parts = [_load(file) for file in files]
    network, notes = _network(model, parts)
    weights = _Checkpoint(parts, network, model)
    check_complete(network, weights, model)
    check_nothing_left(set(parts[0]), set(map(_source_name, network.tensors())), model)
    vocabulary, encode = _vocabulary(_tokenizer(model), network)
    check_tokens(vocabulary, network, model)
    return LanguageModel(
        name=model.resolve().name, network=network, vocabulary=vocabulary, weights=weights, encode=encode, notes=notes
    )


class _Checkpoint:
    """Tensors that are split over several files, and concatenated when they are loaded."""

    def __init__(self, parts: list[dict[str, Tensor]], network: Network, where: Path) -> None:
        self._parts = parts
        self._shapes = network.tensors()
        for number, part in enumerate(parts):
            if set(part) != set(parts[0]):
                what = f"{where}: the files number 0 and {number} of {CONSOLIDATED} do not have the same tensors"
                raise InputError(what, "keep only the files of one checkpoint in the folder")

    def names(self) -> set[str]:
        """See `Weights`."""
        return {name for name in self._shapes if _source_name(name) in self._parts[0]}

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        pieces, axis = self._pieces(name)
        shape = list(pieces[0].shape)
        if axis is not None:
            shape[axis] = sum(piece.shape[axis] for piece in pieces)
        return tuple(shape)

    def load(self, name: str) -> Array:
        """See `Weights`."""
        pieces, axis = self._pieces(name)
        arrays = [piece.float().numpy() for piece in pieces]
        return arrays[0] if axis is None else np.concatenate(arrays, axis=axis)

    def _pieces(self, name: str) -> tuple[list[Tensor], int | None]:
        """Return the tensor's pieces, and the axis of the split; None if every file has the complete tensor."""
        pieces = [part[_source_name(name)] for part in self._parts]
        shape = self._shapes[name]
        if len(shape) == 1 or tuple(pieces[0].shape) == shape:
            return pieces, None
        # The embedding is split along its width up to LLaMA 2, and along the vocabulary since then.
        return pieces, next((axis for axis in (0, 1) if pieces[0].shape[axis] != shape[axis]), 0)


def _source_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, ending = name.split(".")
    return f"layers.{layer}.{_NAMES[part]}.{ending}"


def _load(file: Path) -> dict[str, Tensor]:
    with loading(file, "a checkpoint of tensors"):
        import torch

        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(tensors, dict) or not all(isinstance(one, torch.Tensor) for one in tensors.values()):
            raise InputError(f"{file} contains more than tensors", "choose Meta's consolidated.*.pth")
        return tensors


def _network(folder: Path, parts: list[dict[str, Tensor]]) -> tuple[Network, tuple[str, ...]]:
    path = folder / "params.json"
    params = read_json(path, 2**20)
    fields = Fields(params, str(path))
    width, heads, layers = fields.integer("dim"), fields.integer("n_heads"), fields.integer("n_layers")
    if not (1 <= layers <= MAX_LAYERS and 1 <= width <= MAX_SIZE and heads >= 1 and width % heads == 0):
        raise fields.reject("dim", f"is {width}, with {heads} heads and {layers} layers")
    if params.get("moe"):
        raise InputError(f"{folder} is a mixture of experts, which is not supported", "what works: dense LLaMA 1 to 3")
    first = parts[0]
    embedding, gate = first.get("tok_embeddings.weight"), first.get("layers.0.feed_forward.w1.weight")
    if embedding is None or gate is None or embedding.ndim != 2:
        what = f"{folder} is not a LLaMA checkpoint: it lacks tok_embeddings or feed_forward.w1"
        raise InputError(what, "what works: Meta's own checkpoints of LLaMA 1 to 3")
    rows, columns = embedding.shape
    base = fields.number("rope_theta") if fields.has("rope_theta") else 10000.0
    epsilon = fields.number("norm_eps") if fields.has("norm_eps") else 1e-5
    context = _context(params, base, epsilon)
    network = Network(
        architecture="llama",
        layers=layers,
        width=width,
        hidden=gate.shape[0] * len(parts),
        heads=heads,
        kv_heads=fields.integer("n_kv_heads") if fields.has("n_kv_heads") else heads,
        head=width // heads,
        vocabulary=rows if columns * len(parts) == width or len(parts) == 1 else rows * len(parts),
        context=context,
        epsilon=epsilon,
        rope_base=base,
        halves=False,
        tied="output.weight" not in first,
        scaling=_SCALED if params.get("use_scaled_rope") else None,
    )
    notes = [f"params.json has no context length; assumed {context} tokens, as in that generation of LLaMA"]
    if network.scaling is not None:  # Meta's own code uses 8 for all of them, Hugging Face's conversion 32 for 3.2
        notes.append("positions are scaled by 8, as in Meta's code; for LLaMA 3.2 (32) convert its HF folder instead")
    return network, tuple(notes)


def _context(params: JsonObject, base: float, epsilon: float) -> int:
    """Return the context length of the generation.

    LLaMA 1 has norm_eps 1e-6, 2 has 1e-5, Code and 3 have other bases, 3.1 scales positions.
    """
    if params.get("use_scaled_rope"):
        return 131072
    by_base = {1000000.0: 16384, 500000.0: 8192}
    return by_base.get(base, 2048 if epsilon < 5e-6 else 4096)


def _tokenizer(folder: Path) -> Path:
    """Find tokenizer.model in the folder, or in its parent, where Meta's downloads have it."""
    for path in (folder / "tokenizer.model", folder.parent / "tokenizer.model"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has no tokenizer.model", "put it into the folder")


def _vocabulary(path: Path, network: Network) -> tuple[Vocabulary, Encode]:
    """Read the tokenizer: a SentencePiece file up to LLaMA 2, ranks in base64 since then."""
    if is_ranks(path):
        return read_ranks(path, is_3_1=network.scaling is not None)
    vocabulary = read_model(path)
    return vocabulary, sentencepiece(vocabulary)
