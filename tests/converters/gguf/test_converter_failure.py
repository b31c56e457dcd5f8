"""Errors of llama.cpp's converter and of transformers name the file or key of the user's folder, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.gguf.converter_failure import Failure, explain
from converters.gguf.model_config import ModelConfig

STAGED = Path("/tmp/edge-a1b2_c3d/model")
CONFIG = ModelConfig(Path("config.json"), {"architectures": ["NemotronForCausalLM"], "hidden_size": 64})
PICKLE = "Weights only load failed. This file can still be loaded, to do so you have two options"
HUB = "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files."
# The class of an exception, its text and the line that raised it; what is said, and what to do.
FAILURES = {
    "a file": (
        ("FileNotFoundError", f"File not found: {STAGED}/tokenizer.model", ""),
        "needs tokenizer.model, which the folder does not have",
        "published",
    ),
    "a file that is opened": (
        ("FileNotFoundError", f"[Errno 2] No such file or directory: '{STAGED}/vocab.json'", ""),
        "needs vocab.json,",
        "published",
    ),
    "a file of a class's own check": (("ValueError", f"Error: Missing {STAGED}/tokenizer.model", ""), "needs", "copy"),
    "a file of transformers": (
        ("OSError", f"{STAGED} does not appear to have a file named tokenizer.json. Checkout 'https://hub/'", ""),
        "needs tokenizer.json,",
        "copy it",
    ),
    "a key": (
        ("KeyError", "'rotary_pct'", 'rotary_pct = self.hparams["rotary_pct"]'),
        "config.json has no rotary_pct, which is needed for NemotronForCausalLM",
        "add it",
    ),
    "one of several keys": (
        ("KeyError", "\"could not find any of: ['n_layers', 'num_layers']\"", ""),
        "config.json has no n_layers or num_layers,",
        "add it",
    ),
    "a key within another": (
        ("KeyError", "'Missing the required key rope_scaling.type'", ""),
        "has no rope_scaling.type,",
        "add it",
    ),
    "a key that is not of config.json": (("KeyError", "'hidden_size'", ""), "KeyError: 'hidden_size'", "--debug"),
    "a token": (("KeyError", "'<|user|>'", ""), "has no token <|user|>,", "tokenizer"),
    "a tensor": (("ValueError", "Can not map tensor 'score.weight'", ""), "contain score.weight,", "remove it"),
    "a pre-tokenizer": (
        ("NotImplementedError", "BPE pre-tokenizer was not recognized - update get_vocab_base_pre()", ""),
        "llama.cpp does not know the pre-tokenizer in tokenizer.json",
        "published",
    ),
    "a tokenizer in Python": (
        ("ValueError", "Tokenizer class ChatGLMTokenizer does not exist or is not currently imported.", ""),
        "ChatGLMTokenizer, only exists as Python code",
        "tokenizer.json",
    ),
    "code": (
        ("ValueError", f"The repository {STAGED} contains custom code. Pass `trust_remote_code=True`", ""),
        "needs Python code from the folder",
        "tokenizer.json",
    ),
    "a download": (("OSError", HUB, ""), "conversions download nothing", "copy all files"),
    "a damaged tokenizer": (("OSError", f"Can't load tokenizer for '{STAGED}'. If", ""), "incomplete", "copy"),
    "a new model type": (
        ("ValueError", "The checkpoint has model type `x1` but Transformers does not recognize this", ""),
        "transformers 4 does not know the model type x1",
        "gguf-proof",
    ),
    "a library": (("ModuleNotFoundError", "No module named 'tiktoken'", ""), "the library tiktoken", "tokenizer.json"),
    "a pickle": (("UnpicklingError", PICKLE, ""), "more than tensors", "safetensors"),
    "sizes": (
        ("RuntimeError", "shape '[4, 16]' is invalid for input of size 63", ""),
        "do not fit the weights (shape '[4, 16]' is invalid",
        "config.json",
    ),
    "a check without words": (
        ("AssertionError", "", "assert hparams['norm'] == 'rms'  # the only one"),
        "only supports models with `hparams['norm'] == 'rms'`",
        "config.json",
    ),
    "too many tokens": (
        ("AssertionError", "", "assert max(tokenizer.vocab.values()) < vocab_size"),
        "more tokens than config.json",
        "tokenizer",
    ),
    "a full disk": (("OSError", "[Errno 28] No space left on device", ""), "the disk is full", "--out"),
    "anything else": (
        ("TypeError", f"'NoneType' in {STAGED}\n  x", ""),
        "'NoneType' in the folder",
        "--debug",
    ),
    "nothing at all": (("RecursionError", "", ""), "RecursionError", "--debug"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_explained(name: str) -> None:
    (kind, text, line), told, advice = FAILURES[name]
    what, hint = explain(Failure(kind=kind, text=text, line=line), CONFIG, STAGED)
    assert told in what
    assert advice in hint
    assert "\n" not in what
    assert "/tmp/edge-" not in what
