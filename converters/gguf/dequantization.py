"""Write the weights of a folder in FP8 or GPTQ in single precision, so that transformers can compute its scores.

llama.cpp's converter dequantizes such folders itself, and transformers needs a GPU or more libraries for it. This is a
second implementation, so the proof does not share the converter's errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.gguf.model_config import ModelConfig
from converters.gguf.staging import stage
from converters.gguf.weights import SafetensorsFolder, float_entry, write_header
from runtimes.arrays import Array
from runtimes.errors import InputError

METHODS = ("fp8", "gptq")
_SCALE = "_scale_inv"
_PACKED = ("qweight", "qzeros", "scales", "g_idx")
_PACK_BITS = 32


@dataclass(frozen=True)
class _Tensor:
    """A tensor to write: its shape, and how to load it in float32."""

    shape: tuple[int, ...]
    load: Callable[[], Array]


def dequantize(folder: Path, config: ModelConfig, place: Path) -> Path:
    """Create the folder `place` with the same model in fp32. Raises InputError for a variant that is not supported."""
    settings = ModelConfig(config.path, config.content["quantization_config"])
    stored = SafetensorsFolder(folder)
    tensors = (_fp8 if settings.get("quant_method") == "fp8" else _gptq)(stored, settings)
    stage(folder, place, renewed=False)
    for file in place.glob("model*.safetensors*"):
        file.unlink()
    plain = {key: value for key, value in config.content.items() if key not in ("quantization_config", "auto_map")}
    (place / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    with (place / "model.safetensors").open("wb") as stream:
        write_header(stream, {name: float_entry(tensor.shape) for name, tensor in tensors.items()})
        for tensor in tensors.values():
            stream.write(tensor.load().astype("<f4").tobytes())
    return place


def _plain(stored: SafetensorsFolder, name: str) -> _Tensor:
    return _Tensor(stored.shape(name), lambda: stored.load(name))


def _fp8(stored: SafetensorsFolder, settings: ModelConfig) -> dict[str, _Tensor]:
    """Find the weights, each with a scale for every block of `weight_block_size`, or for all."""
    blocks = settings.get("weight_block_size") or []
    values = _float8()

    def scaled(name: str) -> Callable[[], Array]:
        def load() -> Array:
            scale = stored.load(f"{name}{_SCALE}")
            for axis, size in enumerate(blocks if scale.ndim > 1 else []):
                scale = scale.repeat(size, axis)
            weight = values[stored.load_raw(name)]
            found: Array = weight * scale[tuple(slice(size) for size in weight.shape)] if scale.ndim else weight * scale
            return found

        return load

    return {
        name: _Tensor(stored.shape(name), scaled(name)) if f"{name}{_SCALE}" in stored.names() else _plain(stored, name)
        for name in sorted(stored.names())
        if not name.endswith((_SCALE, "activation_scale", "input_scale"))
    }


def _float8() -> Array:
    """Return the values of all 256 numbers in E4M3. Source: OCP 8-bit Floating Point Specification, section 5."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, (codes & 7) / 8
    values = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7.0))
    values[[0x7F, 0xFF]] = np.nan
    return np.where(codes < 128, values, -values).astype(np.float32)


def _gptq(stored: SafetensorsFolder, settings: ModelConfig) -> dict[str, _Tensor]:
    """Find the weights: whole numbers packed into 32 bits, with a scale and a zero for each group of rows."""
    bits = settings.get("bits")
    if bits not in (2, 4, 8):
        raise InputError(f"{settings.path}: GPTQ with {bits} bits is not supported", "what works: 2, 4 and 8 bits")
    offset = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1  # the first format stores each zero minus 1

    def unpacked(module: str) -> Callable[[], Array]:
        def load() -> Array:
            packed, zeros, scales, group = (stored.load_raw(f"{module}.{part}") for part in _PACKED)
            numbers = _unpack(packed, bits, axis=0)
            found: Array = scales[group] * (numbers - (_unpack(zeros, bits, axis=1) + offset)[group])
            return found.T

        return load

    modules = sorted(name.removesuffix(".qweight") for name in stored.names() if name.endswith(".qweight"))
    parts = {f"{module}.{part}" for module in modules for part in _PACKED}
    tensors = {name: _plain(stored, name) for name in sorted(stored.names() - parts)}
    for module in modules:
        rows, columns = stored.shape(f"{module}.qweight")
        tensors[f"{module}.weight"] = _Tensor((columns, rows * _PACK_BITS // bits), unpacked(module))
    return tensors


def _unpack(packed: Array, bits: int, axis: int) -> Array:
    """Return the numbers of `bits` bits that are packed along an axis, the lowest bits first, as int64."""
    numbers = packed.astype(np.int64)
    parts = [numbers >> shift & (1 << bits) - 1 for shift in range(0, _PACK_BITS, bits)]
    shape = [size * len(parts) if place == axis else size for place, size in enumerate(packed.shape)]
    return np.stack(parts, axis + 1).reshape(shape)
