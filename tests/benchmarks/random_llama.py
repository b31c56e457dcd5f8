"""Write a LLaMA with random weights in the shape of a real one: `python tests/benchmarks/random_llama.py 7b FILE.gguf`

Speed and memory do not depend on the values of weights. Blocks are written one tensor at a time, so 3.8 GB take less
than 200 MB of memory; the script prints its peak.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

from runtimes.host import peak_rss_bytes


class Shape(NamedTuple):
    """The sizes of a LLaMA."""

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32000
    context: int = 4096


SHAPES = {
    "7b": Shape(4096, 11008, 32, 32, 32),
    "1.1b": Shape(2048, 5632, 22, 32, 4),
    "tiny": Shape(256, 768, 2, 4, 4, vocabulary=512, context=512),
}
_SCALE = np.float16(0.01).tobytes()  # random bytes would give scales that are not finite


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], Type]]:
    """Return name, shape (rows first) and type of each tensor, as in llama.cpp's Q4_0 files."""
    kv_width = shape.width // shape.heads * shape.kv_heads
    yield "token_embd.weight", (shape.vocabulary, shape.width), Type.Q4_0
    for layer in range(shape.layers):
        name = f"blk.{layer}."
        yield f"{name}attn_norm.weight", (shape.width,), Type.F32
        yield f"{name}ffn_norm.weight", (shape.width,), Type.F32
        for part, rows in (("q", shape.width), ("k", kv_width), ("v", kv_width), ("output", shape.width)):
            yield f"{name}attn_{part}.weight", (rows, shape.width), Type.Q4_0
        yield f"{name}ffn_gate.weight", (shape.hidden, shape.width), Type.Q4_0
        yield f"{name}ffn_up.weight", (shape.hidden, shape.width), Type.Q4_0
        yield f"{name}ffn_down.weight", (shape.width, shape.hidden), Type.Q4_0
    yield "output_norm.weight", (shape.width,), Type.F32
    yield "output.weight", (shape.vocabulary, shape.width), Type.Q6_K


def content(shape: tuple[int, ...], kind: Type, generator: np.random.Generator) -> np.ndarray:
    """Return the content of a tensor: ones for the norms, else random blocks with a finite scale."""
    if kind is Type.F32:
        return np.ones(shape, np.float32)
    elements, width = GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (int(np.prod(shape)) // elements, width), np.uint8)
    at = 0 if kind is Type.Q4_0 else width - 2
    blocks[:, at : at + 2] = np.frombuffer(_SCALE, np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def write(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write the file."""
    writer = GGUFWriter(path, "llama")
    _describe(writer, shape)
    for name, sizes, kind in tensors(shape):
        elements, width = GGML_QUANT_SIZES[kind]
        stored = sizes if kind is Type.F32 else (*sizes[:-1], sizes[-1] // elements * width)
        size = int(np.prod(stored)) * (4 if kind is Type.F32 else 1)
        dtype = np.dtype(np.float32 if kind is Type.F32 else np.uint8)
        writer.add_tensor_info(name, stored, dtype, size, None if kind is Type.F32 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    generator = np.random.default_rng(seed)
    for _, sizes, kind in tensors(shape):
        writer.write_tensor_data(content(sizes, kind, generator))
    writer.close()


def _describe(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_name("random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_file_type(2)  # mostly Q4_0
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"\u2581word{number}" for number in range(shape.vocabulary - len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(words) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=list(SHAPES))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    write(args.out, SHAPES[args.size])
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, peak memory {(peak_rss_bytes() or 0) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
