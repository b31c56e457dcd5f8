"""Write a GGUF file tensor by tensor: what is in memory is the largest tensor, not the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.model import LanguageModel
from converters.gguf.network import described, frequency_factors, paired, rotation_heads
from converters.gguf.vocabulary import Vocabulary
from runtimes.arrays import Array
from runtimes.errors import InputError

_F32, _F16 = 0, 1  # general.file_type, and the types of tensors
_MOST_HALF = 65504.0
_ROPE = "rope_freqs.weight"
_SPECIAL = ("bos", "eos", "unknown", "padding", "eot")

OnTensor = Callable[[int, int], None]  # how many are written, of how many


def write_model(model: LanguageModel, path: Path, half: bool, on_tensor: OnTensor = lambda _done, _total: None) -> None:
    """Write `path`: matrices in half precision or single, vectors in single. InputError for values that are no numbers.

    The same model gives the same bytes.
    """
    writer = new_writer(path, model.network.architecture)
    writer.add_name(model.name)
    writer.add_file_type(_F16 if half else _F32)
    writer.add_quantization_version(2)
    for key, value in described(model.network).items():
        add_value(writer, f"{model.network.architecture}.{key}", value)
    _add_vocabulary(writer, model.vocabulary.padded(model.network.vocabulary))
    shapes = _shapes(model)
    types = {name: np.float16 if half and len(shape) > 1 else np.float32 for name, shape in shapes.items()}
    write_tensors(writer, shapes, types, lambda name: _converted(model, name), on_tensor, path)


def new_writer(path: Path, architecture: str) -> Any:
    """gguf's own writer, with nothing but the architecture in it."""
    import gguf

    return gguf.GGUFWriter(path, architecture)


def add_value(writer: Any, key: str, value: int | float | str) -> None:
    """Add an entry in the type that llama.cpp reads it in."""
    if isinstance(value, str):
        writer.add_string(key, value)
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
    """Write the header and then one tensor after the other, and close the file."""
    for name, shape in shapes.items():
        kind = np.dtype(types[name])
        writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, name in enumerate(shapes, 1):
            writer.write_tensor_data(_narrowed(load(name), types[name], name, where))
            on_tensor(done, len(shapes))
    finally:
        writer.close()


def _narrowed(values: Array, kind: Any, name: str, where: Path) -> Array:
    largest = max(abs(float(values.max())), abs(float(values.min())))  # no copy, and NaN stays NaN
    if not np.isfinite(largest):
        raise InputError(f"'{name}' of {where.name} holds values that are not finite", "the source is broken")
    if kind is np.float16 and largest > _MOST_HALF:
        what = f"'{name}' of {where.name} holds {largest:.3g}, which does not fit in half precision"
        raise InputError(what, "convert it with --precision fp32")
    return values.astype(kind, copy=False)


def _shapes(model: LanguageModel) -> dict[str, tuple[int, ...]]:
    shapes = model.network.tensors()
    factors = frequency_factors(model.network)
    return shapes if factors is None else {_ROPE: factors.shape, **shapes}


def _converted(model: LanguageModel, name: str) -> Array:
    if name == _ROPE:
        factors = frequency_factors(model.network)
        assert factors is not None
        return factors
    values = model.weights.load(name)
    heads = rotation_heads(model.network, name)
    return paired(values, heads) if heads and model.network.permuted and "_norm" not in name else values


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
