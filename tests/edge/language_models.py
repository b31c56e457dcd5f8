"""Helpers for tests of language models: the command `edge`, a real llama-server, and an adapter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.real_data import real_data

ROOT = Path(__file__).parents[2]
# llama.cpp's own server is inside xllamacpp.
_SERVER = """
import sys
from runtimes.engines.xllamacpp import Adapter
from runtimes.llm.session import LoadOptions
with Adapter().open_text(sys.argv[1], LoadOptions(context=512, slots=2, threads=1)) as session:
    print("http://" + session._parts.netloc, session._key, flush=True)
    sys.stdin.read()
"""


def stories() -> Path:
    """Return the trained model of 260,000 parameters."""
    pytest.importorskip("llama_cpp")
    return real_data("llm/stories260K.gguf")


def edge(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command."""
    command = [sys.executable, "-m", "edge", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=120)


@contextmanager
def llama_server(model: Path) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Start a real llama-server, and yield its address, key and process."""
    pytest.importorskip("xllamacpp")
    command = [sys.executable, "-c", _SERVER, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        try:
            address, key = process.stdout.readline().split()
            yield address, key, process
        finally:
            process.kill()


def write_adapter(path: Path) -> Path:
    """Write a LoRA in GGUF for `stories` that is strong enough to change every answer."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    random = np.random.default_rng(0)
    for name, width, out in (("attn_q", 64, 64), ("ffn_up", 64, 172)):
        writer.add_tensor(f"blk.0.{name}.weight.lora_a", random.normal(size=(4, width)).astype(np.float32))
        writer.add_tensor(f"blk.0.{name}.weight.lora_b", random.normal(size=(out, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
