"""Compute how much memory a language model needs, from its header, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import HostError, InputError, UsageError
from runtimes.host import facts
from runtimes.llm.session import LoadOptions
from runtimes.model_files.gguf import TENSOR_TYPES, GgufFile

# Types that llama.cpp repacks while loading, on any CPU; with a memory-mapped file the weights would be stored twice.
_REPACKED = frozenset(("Q4_0", "Q4_K", "IQ4_NL", "Q2_K", "Q5_K", "Q6_K", "Q8_0", "MXFP4"))
# Tokens of a prompt that are computed at a time. On CPUs this is as fast as llama.cpp's default of 512, with a quarter
# of the buffers, and Ctrl+C takes effect four times as soon: llama.cpp stops between two operations, not inside one.
UBATCH = 128
LOGIT_ROWS = 64  # positions whose scores are computed at a time if all are requested
MIB = 2**20
# Memory of the process in addition to weights, cache and buffers: the library, Python, numpy.
BASE_BYTES = 64 * MIB
_MASK_BYTES = 2 * UBATCH  # of the attention, for each token of the context
_MAX_CACHE_SHARE = 0.5  # of the memory that the weights leave free, if no context length was requested
_SHORTEST = 256
CELLS = 256  # llama.cpp rounds the cache of each slot up to a multiple of these
_KV_TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
_MAX_LAYERS = 512  # LLAMA_MAX_LAYERS in src/llama-hparams.h; with more, or none, llama.cpp aborts
_UNKNOWN_CONTEXT = 2048
# Bits per weight of the usual quantizations of a LLaMA of 7 billion, largest first; other models are close to these.
# Source: the tables of tools/quantize/README.md of github.com/ggml-org/llama.cpp (Llama 3.1 8B).
QUANTIZATIONS = {
    "fp16": 16.0,
    "q8_0": 8.5,
    "q6_k": 6.56,
    "q5_k_m": 5.7,
    "q4_k_m": 4.89,
    "q4_0": 4.66,
    "q3_k_m": 4.0,
    "q2_k": 3.16,
}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by part: the weights, the cache of keys and values, and the compute buffers."""

    weights: int
    cache: int
    buffers: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.cache + self.buffers


def memory_need(model: GgufFile, context: int, slots: int = 1, kv_type: str = "f16") -> MemoryNeed:
    """Return the memory that a model needs with `slots` contexts of `context` tokens each."""
    weights = sum(tensor.bytes for tensor in model.tensors)
    tokens = slots * -(-context // CELLS) * CELLS
    return MemoryNeed(weights, tokens * cache_bytes_per_token(model, kv_type), _buffer_bytes(model, tokens))


def cache_bytes_per_token(model: GgufFile, kv_type: str = "f16") -> int:
    """Return the bytes of keys and values of one token in all layers."""
    layers = model.integer("block_count") or 0
    block, size = _kv_block(kv_type)
    return layers * _kv_heads(model) * sum(_head_widths(model)) * size // block


def trained_context(model: GgufFile) -> int:
    """Return the context length that the model was trained with; 2048 if the file does not contain it."""
    return model.integer("context_length") or _UNKNOWN_CONTEXT


def context_for(model: GgufFile, path: Path, slots: int, kv_type: str, free: int | None) -> int:
    """Return the default context length: as trained, limited to half of the free memory.

    Raises HostError if not even a short context fits.
    """
    trained = trained_context(model)
    if free is None:
        return trained
    fits = (
        _tokens_in(model, int((free - memory_need(model, 0).total) * _MAX_CACHE_SHARE), slots, kv_type) // CELLS * CELLS
    )
    if fits < min(_SHORTEST, trained):
        raise memory_error(model, path, min(_SHORTEST, trained), slots, kv_type, free)
    return min(trained, fits)


def context_size(file: GgufFile, path: Path, options: LoadOptions) -> int:
    """Return the context length of each slot, in tokens.

    Raises HostError if it does not fit into this machine's memory, and UsageError if it is longer than the model was
    trained with, or if the cache type does not suit the model.
    """
    if "block_count" not in {key.rpartition(".")[2] for key in file.metadata}:
        raise InputError(f"{path} is not a language model", "a LoRA adapter is passed with --lora, after its model")
    _check_header(file, path)
    _check_kv_type(file, path, options.kv_type)
    free = None if options.workers else free_memory()
    if options.context is None:
        return context_for(file, path, options.slots, options.kv_type, free)
    trained = trained_context(file)
    if options.context > trained:
        message = f"the context is {options.context} tokens, but {path.name} was trained with {trained}"
        raise UsageError(message, f"use --context {trained} or less")
    check_fits(file, path, options.context, options.slots, options.kv_type, free)
    return options.context


def memory_mode(file: GgufFile, options: LoadOptions) -> str:
    """Choose "map" or "read". Files whose weights are repacked are read: mapped, they would be in memory twice."""
    if options.memory != "auto":
        return options.memory
    if options.settings.get("repack") == "off":
        return "map"
    return "read" if next(iter(file.bytes_by_type()), "") in _REPACKED else "map"


def check_fits(model: GgufFile, path: Path, context: int, slots: int, kv_type: str, free: int | None) -> None:
    """Raise HostError if the model does not fit into `free` bytes; its hint names what fits."""
    if free is not None and memory_need(model, context, slots, kv_type).total > free:
        raise memory_error(model, path, context, slots, kv_type, free)


def memory_error(model: GgufFile, path: Path, context: int, slots: int, kv_type: str, free: int) -> HostError:
    """Return the error for too little memory: the need, the free memory, and the largest alternative that fits."""
    needed = memory_need(model, context, slots, kv_type)
    message = (
        f"{path.name} needs {format_bytes(needed.total)} of memory (weights {format_bytes(needed.weights)}, context"
        f" {format_bytes(needed.cache)}, buffers {format_bytes(needed.buffers)}), and {format_bytes(free)} are free"
    )
    return HostError(message, suggest_fitting(model, free, context, slots, kv_type))


def suggest_fitting(model: GgufFile, free: int, context: int, slots: int = 1, kv_type: str = "f16") -> str:
    """Return the closest alternative that fits into `free` bytes: a shorter context, else the largest quantization.

    The named context is at most `context`, and at most what the model was trained with.
    """
    tokens = _tokens_in(model, free - memory_need(model, 0).total, slots, kv_type) // CELLS * CELLS
    if tokens >= _SHORTEST:
        tokens = min(tokens, context, trained_context(model))
        return f"a context of {tokens} tokens fits: --context {tokens}"
    fitting = largest_quantization(model, free, slots, kv_type)
    if fitting is None:
        return "no quantization of this model fits: use a model with fewer parameters, or distribute it with --workers"
    return f"the largest quantization that fits is {fitting}: edge quantize MODEL.gguf {fitting}"


def largest_quantization(model: GgufFile, free: int, slots: int = 1, kv_type: str = "f16") -> str | None:
    """Return the largest of QUANTIZATIONS below the file's own that fits with short contexts; None if none does."""
    short = memory_need(model, _SHORTEST, slots, kv_type)
    room = free - short.cache - short.buffers
    smaller = [name for name, bits in QUANTIZATIONS.items() if bits < model.bits_per_weight - 0.1]
    return next((name for name in smaller if model.parameters * QUANTIZATIONS[name] / 8 <= room), None)


def free_memory() -> int | None:
    """Return the bytes available without swapping, within the container's limit; None if unknown."""
    memory = facts()["memory"]
    sizes = [size for size in (memory["available_bytes"], memory["limit_bytes"]) if size]
    return min(sizes) if sizes else None


def format_bytes(count: int) -> str:
    """Format bytes for people: `3.83 GB`, `41 MB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _check_header(file: GgufFile, path: Path) -> None:
    """Raise InputError for sizes that the tensors contradict, which would be taken for a lack of memory.

    An architecture that llama.cpp does not know has none: llama.cpp names it.
    """
    if not file.tensors:
        raise InputError(f"{path} has no weights, only a vocabulary", "pass the file of the whole model")
    layers = file.integer("block_count")
    width = file.integer("embedding_length")
    rows = next((tensor.shape[0] for tensor in file.tensors if tensor.name == "token_embd.weight"), width)
    widest = max(size for tensor in file.tensors for size in tensor.shape)
    if layers is not None and not 1 <= layers <= _MAX_LAYERS:
        claim = f"{layers:,} layers, and llama.cpp takes 1 to {_MAX_LAYERS}"
    elif width is not None and width != rows:
        claim = f"an embedding of {width:,} values, and its tensor token_embd.weight has {rows:,}"
    elif (hidden := file.integer("feed_forward_length") or 0) > widest:
        claim = f"a feed-forward part of {hidden:,} values, more than any of its tensors has"
    elif (cached := _kv_heads(file) * max(_head_widths(file))) > widest:
        claim = f"{cached:,} values of keys per token and layer, more than any of its tensors has"
    else:
        return
    what = f"{path} is not a usable GGUF file: it claims {claim}"
    raise InputError(what, "compare its `sha256sum` with the original's")


def _check_kv_type(model: GgufFile, path: Path, kv_type: str) -> None:
    """Raise UsageError if a head's keys or values do not fill whole blocks of the type; llama.cpp would fail then."""
    block, _ = _kv_block(kv_type)
    width = next((width for width in _head_widths(model) if width % block), None)
    if width is not None:
        message = f"the cache type {kv_type} has blocks of {block} values, but a head of {path.name} has {width}"
        raise UsageError(message, "leave out --kv-type to use f16")


def _kv_heads(model: GgufFile) -> int:
    return model.integer("attention.head_count_kv") or model.integer("attention.head_count") or 1


def _head_widths(model: GgufFile) -> tuple[int, int]:
    """Return the number of values in the key and in the value of one head."""
    width = (model.integer("embedding_length") or 0) // (model.integer("attention.head_count") or 1)
    return model.integer("attention.key_length") or width, model.integer("attention.value_length") or width


def _kv_block(kv_type: str) -> tuple[int, int]:
    """Return the values per block of the cache type, and the bytes per block."""
    return next((block, size) for name, block, size in TENSOR_TYPES.values() if name == _KV_TYPES[kv_type])


def _tokens_in(model: GgufFile, room: int, slots: int = 1, kv_type: str = "f16") -> int:
    """Return the context length of each slot whose cache and mask need `room` bytes."""
    return room // (slots * (cache_bytes_per_token(model, kv_type) + _MASK_BYTES))


def _buffer_bytes(model: GgufFile, tokens: int) -> int:
    """Return the bytes for computing a batch: a few rows as wide as the network, the scores, and the attention mask."""
    width, hidden = model.integer("embedding_length") or 0, model.integer("feed_forward_length") or 0
    output = next((tensor for tensor in model.tensors if tensor.name in ("output.weight", "token_embd.weight")), None)
    vocabulary = max(output.shape) if output else 0
    rows = UBATCH * 4 * (6 * width + 2 * hidden)
    return BASE_BYTES + rows + 4 * LOGIT_ROWS * vocabulary + _MASK_BYTES * tokens
