"""Meta's own checkpoints (`consolidated.00.pth` …, params.json, tokenizer.model) to GGUF.

Which axis is cut over the files: `ColumnParallelLinear` and `RowParallelLinear` in llama/model.py of
github.com/meta-llama/llama.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.make import REQUIRES
from converters.gguf.model import LanguageModel, check_complete, check_nothing_left
from converters.gguf.network import LARGEST_SIZE, MOST_LAYERS, Network, RopeScaling
from converters.gguf.ranks import is_ranks, read_ranks
from converters.gguf.recognise import CONSOLIDATED
from converters.gguf.sentencepiece_model import read_model
from converters.gguf.step import GgufStep
from converters.gguf.vocabulary import Encode, Vocabulary, sentencepiece
from converters.gguf.weights import read_json
from converters.quiet import loading
from converters.steps import StepOptions
from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.fields import Fields

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
_SCALED = RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)  # what `use_scaled_rope` means in LLaMA 3.1's model.py


class Step(GgufStep):
    """See `converters.steps.Step`."""

    source = "meta"
    requires = (*REQUIRES, "torch")

    def open(self, model: Path, options: StepOptions) -> LanguageModel:
        """The model of a folder; InputError for what is broken. Nothing but tensors is unpickled."""
        if options.lora:
            raise InputError(f"{model} takes no LoRA", "give a Hugging Face folder")
        files = sorted(model.glob(CONSOLIDATED)) if model.is_dir() else []
        if not files:
            raise InputError(f"{model} holds no {CONSOLIDATED}", "give the folder of Meta's checkpoint")
        parts = [_load(file) for file in files]
        network, notes = _network(model, parts)
        weights = _Checkpoint(parts, network, model)
        check_complete(network, weights, model)
        check_nothing_left(set(parts[0]), set(map(_source_name, network.tensors())), model)
        vocabulary, encode = _vocabulary(_tokenizer(model), network)
        if len(vocabulary.tokens) > network.vocabulary:
            what = f"{model} has {len(vocabulary.tokens)} tokens and embeddings for {network.vocabulary} of them"
            raise InputError(what, "check that tokenizer and weights belong together")
        return LanguageModel(model.resolve().name, network, vocabulary, weights, encode, notes=notes)


class _Checkpoint:
    """Tensors that are cut over several files, put together when they are asked for."""

    def __init__(self, parts: list[dict[str, Any]], network: Network, where: Path) -> None:
        self._parts = parts
        self._wanted = network.tensors()
        for number, part in enumerate(parts):
            if set(part) != set(parts[0]):
                raise InputError(f"{where}: file {number} holds other tensors than file 0", "copy the folder again")

    def names(self) -> set[str]:
        """See `Weights`."""
        return {name for name in self._wanted if _source_name(name) in self._parts[0]}

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

    def _pieces(self, name: str) -> tuple[list[Any], int | None]:
        """The tensor's pieces, and the axis along which they were cut; None where every file has the whole of it."""
        pieces = [part[_source_name(name)] for part in self._parts]
        wanted = self._wanted[name]
        if len(wanted) == 1 or tuple(pieces[0].shape) == wanted:
            return pieces, None
        # The embedding was cut along its width up to LLaMA 2, and along the vocabulary since.
        return pieces, next((axis for axis in (0, 1) if pieces[0].shape[axis] != wanted[axis]), 0)


def _source_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, ending = name.split(".")
    return f"layers.{layer}.{_NAMES[part]}.{ending}"


def _load(file: Path) -> dict[str, Any]:
    with loading(file, "a checkpoint of tensors"):
        import torch

        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
            raise InputError(f"{file} holds more than tensors", "give Meta's consolidated.*.pth")
        return found


def _network(folder: Path, parts: list[dict[str, Any]]) -> tuple[Network, tuple[str, ...]]:
    path = folder / "params.json"
    said = read_json(path, 2**20)
    fields = Fields(said, str(path))
    width, heads, layers = fields.whole("dim"), fields.whole("n_heads"), fields.whole("n_layers")
    if not (1 <= layers <= MOST_LAYERS and 1 <= width <= LARGEST_SIZE and heads >= 1 and width % heads == 0):
        raise fields.reject("dim", f"is {width}, with {heads} heads and {layers} layers")
    if said.get("moe"):
        raise InputError(f"{folder} is a mixture of experts, which is not converted", "what works: dense LLaMA 1 to 3")
    first = parts[0]
    embedding, gate = first.get("tok_embeddings.weight"), first.get("layers.0.feed_forward.w1.weight")
    if embedding is None or gate is None or embedding.ndim != 2:
        raise InputError(f"{folder} holds no LLaMA: it lacks tok_embeddings or feed_forward.w1", "copy it again")
    rows, columns = embedding.shape
    base = fields.number("rope_theta") if fields.has("rope_theta") else 10000.0
    epsilon = fields.number("norm_eps") if fields.has("norm_eps") else 1e-5
    context = _context(said, base, epsilon)
    network = Network(
        architecture="llama",
        layers=layers,
        width=width,
        hidden=gate.shape[0] * len(parts),
        heads=heads,
        kv_heads=fields.whole("n_kv_heads") if fields.has("n_kv_heads") else heads,
        head=width // heads,
        vocabulary=rows if columns * len(parts) == width or len(parts) == 1 else rows * len(parts),
        context=context,
        epsilon=epsilon,
        rope_base=base,
        halves=False,
        tied="output.weight" not in first,
        scaling=_SCALED if said.get("use_scaled_rope") else None,
    )
    notes = [f"params.json does not tell the context: {context} tokens, as that generation of LLaMA has"]
    if network.scaling is not None:  # Meta's own code has 8 for all of them, Hugging Face's conversion 32 for 3.2
        notes.append("positions are stretched by 8, as Meta's code has it; for LLaMA 3.2 (32) take its HF folder")
    return network, tuple(notes)


def _context(said: dict[str, Any], base: float, epsilon: float) -> int:
    """What the generations were trained with: 1 has norm_eps 1e-6, 2 1e-5, Code and 3 other bases, 3.1 scaled ones."""
    if said.get("use_scaled_rope"):
        return 131072
    known = {1000000.0: 16384, 500000.0: 8192}
    return known.get(base, 2048 if epsilon < 5e-6 else 4096)


def _tokenizer(folder: Path) -> Path:
    """tokenizer.model, in the folder or above it, where Meta's downloads have it."""
    for path in (folder / "tokenizer.model", folder.parent / "tokenizer.model"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has no tokenizer.model", "put it into the folder")


def _vocabulary(path: Path, network: Network) -> tuple[Vocabulary, Encode]:
    """SentencePiece's file up to LLaMA 2, ranks in base64 since."""
    if is_ranks(path):
        return read_ranks(path, is_3_1=network.scaling is not None)
    found = read_model(path)
    return found, sentencepiece(found)
