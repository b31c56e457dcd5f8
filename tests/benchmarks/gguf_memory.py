"""How much memory does writing a GGUF take? A LLaMA-shaped folder is created and converted in a separate process.

    python -m tests.benchmarks.gguf_memory [LAYERS]

The default is a folder of 2 GB. It is written twice: by edge, and by llama.cpp's converter in its environment. Prints
the peak of each process and what Python and its libraries use themselves, next to the size of the largest tensor and of
the model: the difference has to grow with the former and not with the latter. The weights are zeros, because their
values do not matter.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.converters.gguf.test_gguf import trained_tokenizer

WIDTH, HIDDEN, HEADS, VOCABULARY = 1024, 4096, 16, 32000
MOST = 1500  # MiB
CHILD = """
import sys
from pathlib import Path
import gguf
from converters.gguf.folder_model import open_folder
from converters.gguf.hugging_face import hugging_face_name, read_network
from converters.gguf.model_config import read_config
from converters.gguf.language_model import LanguageModel, RenamedWeights
from converters.gguf.vocabulary import Vocabulary
from converters.gguf.weights import SafetensorsFolder
from converters.gguf.writer import write_model
from runtimes.host import peak_rss_bytes
folder = Path(sys.argv[1])
before = peak_rss_bytes()
if sys.argv[2] == "llama.cpp":
    import resource
    open_folder(folder, read_config(folder), False).write(folder / "model.gguf", "fp16", None)
    print(before, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    sys.exit()
stored = SafetensorsFolder(folder)
network = read_network(folder, stored)
weights = RenamedWeights(stored, hugging_face_name, set(network.tensors()))
vocabulary = Vocabulary(kind="llama", tokens=("<unk>",), types=(2,), scores=(0.0,))
parts = {"network": network, "vocabulary": vocabulary, "weights": weights, "encode": lambda _text: []}
write_model(LanguageModel(name="model", **parts), folder / "model.gguf", "fp16")
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
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "vocab_size": VOCABULARY,
            "tie_word_embeddings": False,
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        size = _write_zeros(folder / "model.safetensors", layers)
        trained_tokenizer("smollm").save(str(folder / "tokenizer.json"))
        largest = 4 * VOCABULARY * WIDTH
        print(f"model {size / 2**20:.0f} MiB in bf16, largest tensor {largest / 2**20:.0f} MiB in fp32")
        for writer in ("edge", "llama.cpp"):
            run = subprocess.run(
                [sys.executable, "-c", CHILD, name, writer], stdout=subprocess.PIPE, text=True, check=True
            )
            before, peak = (number / 2**20 for number in map(int, run.stdout.split()))
            print(f"{writer}: {peak:.0f} MiB at most; Python and edge's libraries alone {before:.0f} MiB")
            if peak > MOST:
                sys.exit(f"more than {MOST} MiB")


def _write_zeros(path: Path, layers: int) -> int:
    """Write a sparse safetensors file of bf16 zeros; return the number of bytes of its data."""
    from converters.gguf.hugging_face import hugging_face_name
    from converters.gguf.hyperparameters import Network

    network = Network(
        architecture="llama",
        layers=layers,
        width=WIDTH,
        hidden=HIDDEN,
        heads=HEADS,
        kv_heads=HEADS,
        head=WIDTH // HEADS,
        vocabulary=VOCABULARY,
        context=2048,
        epsilon=1e-6,
        rope_base=1e4,
        halves=True,
        tied=False,
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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 58)
