"""How much memory a language model will need, told from its header before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import HostError, InputError, UsageError
from runtimes.gguf_file import TENSOR_TYPES, GgufFile
from runtimes.host import facts
from runtimes.text import LoadOptions

# What llama.cpp lays out anew for the CPU while loading, whatever the CPU: over a mapped file that would be held twice.
_REPACKED = frozenset(("Q4_0", "Q4_K", "IQ4_NL", "Q2_K", "Q5_K", "Q6_K", "Q8_0", "MXFP4"))
# Tokens of a prompt that are computed at a time. On CPUs as quick as llama.cpp's default of 512, in a quarter of the
# buffers, and Ctrl+C is heard four times as soon: llama.cpp stops between two operations, not inside of one.
UBATCH = 128
LOGIT_ROWS = 64  # positions whose scores are computed at a time where all are asked for
MIB = 2**20
# What the process holds beside weights, cache and buffers: the library, Python, numpy.
BASE_BYTES = 64 * MIB
_MASK_BYTES = 2 * UBATCH  # of the attention, for each token of the context
_MOST_OF_FREE = 0.5  # of what the weights leave free goes to the cache where nobody says how long the context is
_SHORTEST = 256
_CELLS = 256  # llama.cpp rounds the cache of each slot up to a multiple of these
_KV_TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
_UNKNOWN_CONTEXT = 2048
# Bits per weight of the usual quantisations of a LLaMA of 7 billion, largest first: files of other models lie near.
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
class Need:
    """Bytes by part: the weights, the cache of keys and values, and what is computed in."""

    weights: int
    cache: int
    buffers: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.buffers


def need(model: GgufFile, context: int, slots: int = 1, kv_type: str = "f16") -> Need:
    """What a model takes with `slots` contexts of `context` tokens each."""
    weights = sum(tensor.bytes for tensor in model.tensors)
    tokens = slots * -(-context // _CELLS) * _CELLS
    return Need(weights, tokens * cache_bytes_per_token(model, kv_type), _buffer_bytes(model, tokens))


def cache_bytes_per_token(model: GgufFile, kv_type: str = "f16") -> int:
    """Bytes of keys and values of one token in all layers."""
    layers = model.whole("block_count") or 0
    heads = model.whole("attention.head_count") or 1
    kv_heads = model.whole("attention.head_count_kv") or heads
    block, size = _kv_block(kv_type)
    return layers * kv_heads * sum(_head_widths(model)) * size // block


def trained_context(model: GgufFile) -> int:
    """Tokens that the model was trained for; 2048 where the file does not say."""
    return model.whole("context_length") or _UNKNOWN_CONTEXT


def context_for(model: GgufFile, path: Path, slots: int, kv_type: str, free: int | None) -> int:
    """The context where nobody asked for one: as trained, but no more than half of the memory left free holds."""
    trained = trained_context(model)
    if free is None:
        return trained
    fits = _tokens_in(model, int((free - need(model, 0).total) * _MOST_OF_FREE), slots, kv_type) // _CELLS * _CELLS
    if fits < min(_SHORTEST, trained):
        raise too_large(model, path, min(_SHORTEST, trained), slots, kv_type, free)
    return min(trained, fits)


def context_size(file: GgufFile, path: Path, options: LoadOptions) -> int:
    """Tokens for each slot; HostError where this machine's memory does not hold them.

    UsageError for more than was trained, and for a type of the cache that does not suit the model.
    """
    if "block_count" not in {key.rpartition(".")[2] for key in file.metadata}:
        raise InputError(f"{path} holds no language model", "adapters are given with --lora beside their model")
    _check_kv_type(file, path, options.kv_type)
    free = None if options.workers else free_memory()
    if options.context is None:
        return context_for(file, path, options.slots, options.kv_type, free)
    trained = trained_context(file)
    if options.context > trained:
        message = f"a context of {options.context} tokens is asked for; {path.name} was trained for {trained}"
        raise UsageError(message, f"--context {trained} is the most that it understands")
    check_fits(file, path, options.context, options.slots, options.kv_type, free)
    return options.context


def memory_mode(file: GgufFile, options: LoadOptions) -> str:
    """Choose "map" or "read". Files whose weights are laid out anew are read: mapped, they would be in memory twice."""
    if options.memory != "auto":
        return options.memory
    if options.settings.get("repack") == "off":
        return "map"
    return "read" if next(iter(file.bytes_by_type()), "") in _REPACKED else "map"


def check_fits(model: GgufFile, path: Path, context: int, slots: int, kv_type: str, free: int | None) -> None:
    """HostError where the model will not fit into `free` bytes, naming what would."""
    if free is not None and need(model, context, slots, kv_type).total > free:
        raise too_large(model, path, context, slots, kv_type, free)


def too_large(model: GgufFile, path: Path, context: int, slots: int, kv_type: str, free: int) -> HostError:
    """The refusal: what is needed, what there is, and the largest thing that fits."""
    wanted = need(model, context, slots, kv_type)
    message = (
        f"{path.name} needs {gigabytes(wanted.total)} of memory (weights {gigabytes(wanted.weights)}, context"
        f" {gigabytes(wanted.cache)}, buffers {gigabytes(wanted.buffers)}), and {gigabytes(free)} are free"
    )
    return HostError(message, remedy(model, free, context, slots, kv_type))


def remedy(model: GgufFile, free: int, context: int, slots: int = 1, kv_type: str = "f16") -> str:
    """The nearest thing that fits into `free` bytes: a shorter context, else the largest quantisation.

    `slots` contexts of `context` tokens each were asked for; no more than that, or than was trained, is named.
    """
    tokens = _tokens_in(model, free - need(model, 0).total, slots, kv_type) // _CELLS * _CELLS
    if tokens >= _SHORTEST:
        tokens = min(tokens, context, trained_context(model))
        return f"a context of {tokens} tokens fits: --context {tokens}"
    fitting = largest_quantization(model, free, slots, kv_type)
    if fitting is None:
        return "no quantisation of this model fits: take one with fewer parameters, or share it out with --workers"
    return f"the largest quantisation that fits is {fitting}: edge quantize MODEL.gguf {fitting}"


def largest_quantization(model: GgufFile, free: int, slots: int = 1, kv_type: str = "f16") -> str | None:
    """The largest of QUANTIZATIONS, smaller than the file's own, that fits with short contexts; None: none does."""
    short = need(model, _SHORTEST, slots, kv_type)
    room = free - short.cache - short.buffers
    smaller = [name for name, bits in QUANTIZATIONS.items() if bits < model.bits_per_weight - 0.1]
    return next((name for name in smaller if model.parameters * QUANTIZATIONS[name] / 8 <= room), None)


def free_memory() -> int | None:
    """Bytes that this machine can give without swapping, within its container's limit; None where it does not tell."""
    memory = facts()["memory"]
    known = [memory[key] for key in ("available_bytes", "limit_bytes") if memory.get(key)]
    return min(known) if known else None


def gigabytes(count: int) -> str:
    """Bytes for people: `3.83 GB`, `41 MB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _check_kv_type(model: GgufFile, path: Path, kv_type: str) -> None:
    """UsageError where a head's keys or values do not fill the blocks of the type; llama.cpp makes no context then."""
    block, _ = _kv_block(kv_type)
    width = next((width for width in _head_widths(model) if width % block), None)
    if width is not None:
        message = f"a cache of {kv_type} holds {block} numbers of a head together, and the heads of {path.name} {width}"
        raise UsageError(message, "leave out --kv-type: the cache is f16 then")


def _head_widths(model: GgufFile) -> tuple[int, int]:
    """Numbers in the key and in the value of one head."""
    width = (model.whole("embedding_length") or 0) // (model.whole("attention.head_count") or 1)
    return model.whole("attention.key_length") or width, model.whole("attention.value_length") or width


def _kv_block(kv_type: str) -> tuple[int, int]:
    """How many numbers of the cache are held together, and in how many bytes."""
    return next((block, size) for name, block, size in TENSOR_TYPES.values() if name == _KV_TYPES[kv_type])


def _tokens_in(model: GgufFile, room: int, slots: int = 1, kv_type: str = "f16") -> int:
    """The context of each slot whose cache and mask take `room` bytes."""
    return room // (slots * (cache_bytes_per_token(model, kv_type) + _MASK_BYTES))


def _buffer_bytes(model: GgufFile, tokens: int) -> int:
    """What a batch is computed in: a handful of rows as wide as the network, the scores, and the attention's mask."""
    width, hidden = model.whole("embedding_length") or 0, model.whole("feed_forward_length") or 0
    output = next((tensor for tensor in model.tensors if tensor.name in ("output.weight", "token_embd.weight")), None)
    vocabulary = max(output.shape) if output else 0
    rows = UBATCH * 4 * (6 * width + 2 * hidden)
    return BASE_BYTES + rows + 4 * LOGIT_ROWS * vocabulary + _MASK_BYTES * tokens
