"""Write a GGUF file tensor by tensor, so that only one tensor is in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.hyperparameters import describe, frequency_factors, pair_up, rotation_heads
from converters.gguf.model_parts import ModelParts, OnTensor
from converters.gguf.source_tokenizer import SourceTokenizer
from converters.gguf.vocabulary import Vocabulary
from runtimes.arrays import Array
from runtimes.errors import InputError

_FILE_TYPES = {"fp32": 0, "fp16": 1, "bf16": 32}  # general.file_type: enum llama_ftype in llama.h
_BF16 = "bf16"  # numpy has no such type
Entry = int | float | str | list[int] | list[float]  # the value of a metadata entry
MATRIX_TYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": _BF16}
_MAX_HALF = 65504.0
_ROPE = "rope_freqs.weight"
_SPECIAL = ("bos", "eos", "unknown", "padding", "eot")


def write_model(
    model: ModelParts, path: Path, precision: str, on_tensor: OnTensor = lambda _done, _total: None
) -> None:
    """Write `path`: matrices in fp32, fp16 or bf16, vectors in fp32. The same model gives the same bytes.

    Raises InputError for values that are not finite, or do not fit into half precision.
    """
    writer = new_writer(path, model.network.architecture)
    writer.add_name(general_name(model.name, model.tokenizer))
    writer.add_file_type(_FILE_TYPES[precision])
    writer.add_quantization_version(2)
    for key, value in describe(model.network).items():
        add_value(writer, f"{model.network.architecture}.{key}", value)
    _add_vocabulary(writer, model.vocabulary.padded(model.network.vocabulary))
    shapes = _shapes(model)
    types = {name: MATRIX_TYPES[precision] if len(shape) > 1 else np.float32 for name, shape in shapes.items()}
    write_tensors(writer, shapes, types, lambda name: _convert(model, name), on_tensor, path)


def new_writer(path: Path, architecture: str) -> Any:
    """Return a writer of the library gguf for an architecture."""
    import gguf

    return gguf.GGUFWriter(path, architecture)


def add_value(writer: Any, key: str, value: Entry) -> None:
    """Add an entry with the type that llama.cpp expects."""
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def write_tensors(
    writer: Any,
    shapes: dict[str, tuple[int, ...]],
    types: dict[str, Any],
    load: Callable[[str], Array],
    on_tensor: OnTensor,
    where: Path,
) -> None:
    """Write the header and the tensors one after the other, and close the file."""
    for name, shape in shapes.items():
        if types[name] == _BF16:
            import gguf

            wide = (*shape[:-1], 2 * shape[-1])  # in bytes, which gguf expects for types that numpy lacks
            raw = gguf.GGMLQuantizationType.BF16
            writer.add_tensor_info(name, wide, np.dtype(np.uint8), int(np.prod(wide)), raw_dtype=raw)
            continue
        kind = np.dtype(types[name])
        writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, name in enumerate(shapes, 1):
            writer.write_tensor_data(_narrow(load(name), types[name], name, where))
            on_tensor(done, len(shapes))
    finally:
        writer.close()


def _narrow(values: Array, kind: Any, name: str, where: Path) -> Array:
    largest = max(abs(float(values.max())), abs(float(values.min())))  # no copy, and NaN stays NaN
    if not np.isfinite(largest):
        what = f"'{name}' of {where.name} has values that are not finite"
        raise InputError(what, "the source itself has such weights, and cannot be converted")
    if kind is np.float16 and largest > _MAX_HALF:
        what = f"'{name}' of {where.name} contains {largest:.3g}, which does not fit in half precision"
        raise InputError(what, "convert it with --precision fp32")
    if kind == _BF16:
        import gguf

        halves: Array = gguf.quants.quantize(values.astype(np.float32, copy=False), gguf.GGMLQuantizationType.BF16)
        return halves
    return values.astype(kind, copy=False)


def general_name(name: str, tokenizer: SourceTokenizer) -> str:
    """Return `general.name`, derived from the artifact's name, without side effects in llama.cpp.

    If the name contains "phi-3" or "phi3", llama.cpp adds the spaces after special tokens to them, except for four
    tokens, which it looks up without checking that they exist (`llama_vocab::impl::load` in src/llama-vocab.cpp). So
    the name contains it only if the tokenizer behaves like this.
    """
    plain = re.sub(r"(?i)phi-?(?=3)", "phi ", name)
    return f"{plain} (phi-3 tokens)" if tokenizer.strips_behind else plain


def _shapes(model: ModelParts) -> dict[str, tuple[int, ...]]:
    shapes = model.network.tensors()
    factors = frequency_factors(model.network)
    return shapes if factors is None else {_ROPE: factors.shape, **shapes}


def _convert(model: ModelParts, name: str) -> Array:
    if name == _ROPE:
        factors = frequency_factors(model.network)
        assert factors is not None
        return factors
    values = model.weights.load(name)
    heads = rotation_heads(model.network, name)
    return pair_up(values, heads) if heads and model.network.permuted and "_norm" not in name else values


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    for name in _SPECIAL:
        if name in vocabulary.special:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", vocabulary.special[name])
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.kind == "llama":
        writer.add_add_space_prefix(vocabulary.adds_space)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)
