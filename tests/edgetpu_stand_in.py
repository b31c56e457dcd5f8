"""A Coral for tests: a `libedgetpu.so.1` in C that claims compiled operators, and an artifact for it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtimes import artifact as artifacts
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.tensors import dequantize

_SOURCE = Path(__file__).with_suffix(".c")
COMPILED = Path(__file__).parent / "compatibility" / "artifacts" / "edgetpu-int8"


def build(folder: Path) -> Path:
    """Compile the library into `folder`, for LD_LIBRARY_PATH, and return the folder; skips without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libedgetpu.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, _SOURCE], check=True)
    (folder / "libedgetpu.so").symlink_to(library.name)  # find_library looks for it, where ldconfig knows nothing
    return folder


def artifact(folder: Path) -> Path:
    """Write an artifact of a compiled model whose self-check has the answers of the library, and return `folder`."""
    old = Artifact.open(COMPILED)
    shutil.copytree(COMPILED, folder)
    (given,), (spec,) = old.manifest.inputs, old.manifest.outputs
    inputs, _ = old.selfcheck()
    outputs = [answer(sample, spec) for sample in inputs[given.name]]
    values = np.stack([dequantize(output, spec.quantization) for output in outputs])
    artifacts.write(folder, replace(old.manifest, files={}), inputs, {spec.name: values})
    return folder


def answer(sample: Array, spec: TensorSpec) -> Array:
    """Return what the library computes from one input; see `invoke` in C."""
    total = 1
    for byte in np.ascontiguousarray(sample).tobytes():
        total = (total * 31 + byte) % 2**32
    shape = tuple(int(size) for size in spec.shape)
    content = bytes(((total >> (place % 24)) + place) % 256 for place in range(int(np.prod(shape))))
    return np.frombuffer(content, spec.dtype).reshape(shape)
