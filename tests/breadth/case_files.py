"""Small ONNX models in a folder as cases like ONNX's own: inputs are drawn here, and ONNX Runtime gives the outputs.

A file `NAME.npz` beside `NAME.onnx` has inputs [n, *shape] by name, of which the first is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.breadth.node_tests import Case
from tests.breadth.real_judge import Port, open_engine

_FREE = 8  # for a free size; a free leading one is a batch of 1
_MOST = {"b": 2, "u": 256, "i": 10}  # numpy's kind → whole numbers up to it


def case_files(folder: Path) -> list[Case]:
    """Return a case for each model of the folder, by name."""
    return [_case(path) for path in sorted(folder.glob("*.onnx"))]


def _case(path: Path) -> Case:
    import onnx

    engine = open_engine(path)
    inputs = [_drawn(port, np.random.default_rng(place)) for place, port in enumerate(engine.inputs)]
    if (beside := path.with_suffix(".npz")).exists():
        with np.load(beside) as given:
            inputs = [
                given[port.name][:1].reshape(value.shape) for port, value in zip(engine.inputs, inputs, strict=True)
            ]
    model: Any = onnx.load(path)
    return Case(path.stem, path.stem, model, inputs, [np.asarray(one) for one in engine.run(inputs)])


def _drawn(port: Port, generator: np.random.Generator) -> np.ndarray:
    """Return an input; real numbers are positive, because some models take their logarithm."""
    shape = tuple(size if size > 0 else _FREE if place else 1 for place, size in enumerate(port.shape))
    if port.dtype.kind == "f":
        return np.asarray(generator.uniform(0.1, 1, shape)).astype(port.dtype)
    return np.asarray(generator.integers(0, _MOST[port.dtype.kind], shape)).astype(port.dtype)
