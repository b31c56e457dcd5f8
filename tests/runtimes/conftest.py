"""Fixtures of the engines' tests: the tiny models, the real data, and an Edge TPU that is played by numpy."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

MODELS = Path(__file__).parent / "models"
WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def models() -> Path:
    """The folder of tiny models; all compute a × W + b and 2 a (see make_models.py)."""
    return MODELS


@pytest.fixture
def data() -> Path:
    """The real pictures and weights."""
    named = os.environ.get("EDGE_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / ".." / "shared" / "data"
    if not folder.is_dir() and named is None:
        pytest.skip("no real data: set EDGE_DATA")
    return folder


class PlayedInterpreter:
    """TFLite's interpreter as far as this project calls it, computing what the tiny models compute."""

    def __init__(self, model_path: str, **_: Any) -> None:
        self._shapes = {0: [1, 4], 1: [1, 3], 2: [1, 3], 3: [1, 4]}
        self._values: dict[int, Any] = {}

    def allocate_tensors(self) -> None:
        """Outputs take the inputs' number of rows."""
        self._shapes[2][0] = self._shapes[3][0] = self._shapes[0][0]

    def get_input_details(self) -> list[dict[str, Any]]:
        """As TFLite words them."""
        return [self._detail(0, "wide"), self._detail(1, "narrow")]

    def get_output_details(self) -> list[dict[str, Any]]:
        """As TFLite words them."""
        return [self._detail(2, "sum"), self._detail(3, "double")]

    def _detail(self, index: int, name: str) -> dict[str, Any]:
        no_quantization = {"scales": np.array([]), "zero_points": np.array([]), "quantized_dimension": 0}
        return {
            "name": name,
            "index": index,
            "dtype": np.float32,
            "shape": np.array(self._shapes[index]),
            "shape_signature": np.array([-1, self._shapes[index][1]]),
            "quantization_parameters": no_quantization,
        }

    def resize_tensor_input(self, index: int, shape: tuple[int, ...]) -> None:
        """Takes effect with `allocate_tensors`."""
        self._shapes[index] = list(shape)

    def set_tensor(self, index: int, value: Any) -> None:
        """Refuses what does not fit, as TFLite does."""
        if list(value.shape) != self._shapes[index]:
            raise ValueError(f"Cannot set tensor: Dimension mismatch. Got {value.shape}")
        self._values[index] = value

    def invoke(self) -> None:
        """Compute both outputs."""
        self._values[2] = self._values[0] @ WEIGHTS + self._values[1]
        self._values[3] = self._values[0] * 2

    def get_tensor(self, index: int) -> Any:
        """A copy, as TFLite gives one."""
        return self._values[index].copy()


@pytest.fixture
def pycoral(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Google's pycoral with one Edge TPU, of which only the chip itself is not real."""
    for name in ("pycoral", "pycoral.utils", "pycoral.utils.edgetpu"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    edgetpu: Any = sys.modules["pycoral.utils.edgetpu"]
    edgetpu.list_edge_tpus = lambda: [{"type": "usb", "path": "/sys/bus/usb/devices/1-1"}]
    edgetpu.make_interpreter = lambda path, device=None: PlayedInterpreter(path)
    return sys.modules["pycoral.utils.edgetpu"]
