"""How much memory does writing a GGUF take? A LLaMA-shaped folder is created and converted in a separate process.

    python tests/benchmarks/gguf_memory.py [LAYERS]

Prints the peak minus what Python and numpy use themselves, next to the size of the largest tensor and of the model: it
has to grow with the former and not with the latter. The weights are zeros, because their values do not matter.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WIDTH, HIDDEN, HEADS, VOCABULARY = 1024, 4096, 16, 32000
CHILD = """
import sys
from pathlib import Path
import gguf
from converters.gguf.hugging_face import hugging_face_name, read_network
from converters.gguf.language_model import LanguageModel, Renamed
from converters.gguf.vocabulary import Vocabulary
from converters.gguf.weights import SafetensorsFolder
from converters.gguf.writer import write_model
from runtimes.host import peak_rss_bytes
folder = Path(sys.argv[1])
stored = SafetensorsFolder(folder)
network = read_network(folder, stored)
weights = Renamed(stored, hugging_face_name, set(network.tensors()))
vocabulary = Vocabulary("llama", ("<unk>",), (2,), (0.0,))
before = peak_rss_bytes()
write_model(LanguageModel("model", network, vocabulary, weights, lambda _text: []), folder / "model.gguf", "fp16")
print(before, peak_rss_bytes())
"""


def main(layers: int) -> None:
    """Create the folder, convert it, print one line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": WIDTH,
            "intermediate_size": HIDDEN,
            "num_hidden_layers": layers,
            "num_attention_heads": HEADS,
            "vocab_size": VOCABULARY,
            "tie_word_embeddings": False,
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        size = _write_zeros(folder / "model.safetensors", layers)
        run = subprocess.run([sys.executable, "-c", CHILD, name], capture_output=True, text=True, check=True)
        before, peak = map(int, run.stdout.split())
        largest = 4 * VOCABULARY * WIDTH
        print(
            f"model {size / 2**20:.0f} MiB in bf16, largest tensor {largest / 2**20:.0f} MiB in fp32: "
            f"{(peak - before) / 2**20:.0f} MiB over the {before / 2**20:.0f} MiB of Python and its libraries"
        )


def _write_zeros(path: Path, layers: int) -> int:
    """Write a sparse safetensors file of bf16 zeros; return the number of bytes of its data."""
    from converters.gguf.hugging_face import hugging_face_name
    from converters.gguf.hyperparameters import Network

    network = Network(
        "llama", layers, WIDTH, HIDDEN, HEADS, HEADS, WIDTH // HEADS, VOCABULARY, 2048, 1e-6, 1e4, True, False
    )
    header, at = {}, 0
    for name, shape in network.tensors().items():
        end = at + 2 * int(np.prod(shape))
        header[hugging_face_name(name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + at)
    return at


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
