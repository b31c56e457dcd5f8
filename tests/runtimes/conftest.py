"""Fixtures of the engines' tests: tiny models, and chips that are simulated with numpy."""

from __future__ import annotations

import ctypes
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.real_data import data  # noqa: F401 - a fixture

MODELS = Path(__file__).parent / "models"
WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def models() -> Path:
    """The folder of tiny models; all compute a × W + b and 2 a (see make_models.py)."""
    return MODELS


class PlayedInterpreter:
    """A substitute for TFLite's interpreter, as far as edge uses it, which computes the same as the tiny models."""

    def __init__(self, model_path: str, **_: Any) -> None:
        self._shapes = {0: [1, 4], 1: [1, 3], 2: [1, 3], 3: [1, 4]}
        self._values: dict[int, Any] = {}

    def allocate_tensors(self) -> None:
        """Give the outputs as many rows as the inputs."""
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
        """Reject values that do not fit, as TFLite does."""
        if list(value.shape) != self._shapes[index]:
            raise ValueError(f"Cannot set tensor: Dimension mismatch. Got {value.shape}")
        self._values[index] = value

    def invoke(self) -> None:
        """Compute both outputs."""
        self._values[2] = self._values[0] @ WEIGHTS + self._values[1]
        self._values[3] = self._values[0] * 2

    def get_tensor(self, index: int) -> Any:
        """Return a copy, as TFLite does."""
        return self._values[index].copy()


@pytest.fixture
def pycoral(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Google's pycoral with one Edge TPU; only the chip is simulated."""
    for name in ("pycoral", "pycoral.utils", "pycoral.utils.edgetpu"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    edgetpu: Any = sys.modules["pycoral.utils.edgetpu"]
    edgetpu.list_edge_tpus = lambda: [{"type": "usb", "path": "/sys/bus/usb/devices/1-1"}]
    edgetpu.make_interpreter = lambda path, device=None: PlayedInterpreter(path)
    return sys.modules["pycoral.utils.edgetpu"]


class PlayedCuda:
    """A substitute for NVIDIA's driver, as far as edge uses it; the device's memory is the host's."""

    def __init__(self, capability: tuple[int, int] = (5, 3), version: int = 10020) -> None:
        self.held: dict[int, Any] = {}
        self._numbers = dict(zip((75, 76), capability))
        self._version = version

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - NVIDIA's names
        return 0

    def cuDeviceGet(self, _device: Any, _ordinal: int) -> int:  # noqa: N802
        return 0

    def cuDevicePrimaryCtxRetain(self, _context: Any, _device: Any) -> int:  # noqa: N802
        return 0

    def cuCtxSetCurrent(self, _context: Any) -> int:  # noqa: N802
        return 0

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self._version
        return 0

    def cuDeviceGetAttribute(self, number: Any, which: int, _device: Any) -> int:  # noqa: N802
        number._obj.value = self._numbers[which]
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > 2**30:
            return 2  # CUDA_ERROR_OUT_OF_MEMORY
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.held[address._obj.value] = buffer
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.held[address.value]
        return 0

    def cuMemcpyHtoD_v2(self, device: Any, host: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(device.value, host.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, host: Any, device: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(host.value, device.value, size.value)
        return 0


ENGINE = b"an engine that tests play\n"
_NAMES = ("wide", "narrow", "sum", "double")
_WIDTHS = (4, 3, 3, 4)


class _PlayedContext:
    """Runs the tiny model on memory that is passed by address, as TensorRT does."""

    def __init__(self) -> None:
        self.rows = 1
        self.profiler: Any = None

    def _shape_of(self, place: int) -> tuple[int, int]:
        return self.rows, _WIDTHS[place]

    def execute_v2(self, addresses: list[int]) -> bool:
        wide, narrow, first, second = (self._array(address, place) for place, address in enumerate(addresses))
        first[...], second[...] = wide @ WEIGHTS + narrow, wide * 2
        if self.profiler is not None:
            self.profiler.report_layer_time("MatMul_0 + Add_1", 0.002)
            self.profiler.report_layer_time("Mul_2", 0.001)
        return True

    def _array(self, address: int, place: int) -> Any:
        shape = self._shape_of(place)
        memory = (ctypes.c_float * (shape[0] * shape[1])).from_address(address)
        return np.frombuffer(memory, np.float32).reshape(shape)


class _NamedContext(_PlayedContext):
    """As TensorRT 8.5 and later name it."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert shape[1] == _WIDTHS[_NAMES.index(name)]
        self.rows = shape[0]

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return self._shape_of(_NAMES.index(name))


class _BoundContext(_PlayedContext):
    """As TensorRT up to 8.4 names it."""

    def set_binding_shape(self, place: int, shape: tuple[int, ...]) -> None:
        self.rows = shape[0]

    def get_binding_shape(self, place: int) -> tuple[int, int]:
        return self._shape_of(place)


class _NamedEngine:
    num_io_tensors = 4
    create_execution_context = _NamedContext

    def get_tensor_name(self, place: int) -> str:
        return _NAMES[place]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in _NAMES[:2] else "output"

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return -1, _WIDTHS[_NAMES.index(name)]

    def get_tensor_dtype(self, _name: str) -> str:
        return "FLOAT"


class _BoundEngine:
    num_bindings = 4
    create_execution_context = _BoundContext

    def get_binding_name(self, place: int) -> str:
        return _NAMES[place]

    def binding_is_input(self, place: int) -> bool:
        return place < 2

    def get_binding_shape(self, place: int) -> tuple[int, int]:
        return -1, _WIDTHS[place]

    def get_binding_dtype(self, _place: int) -> str:
        return "FLOAT"

    def get_binding_index(self, name: str) -> int:
        return _NAMES.index(name)


class _PlayedBuilder:
    """Records the requested build in the module's `built`, and returns the tiny engine."""

    def __init__(self, module: Any, logger: Any) -> None:
        self.module, self.logger = module, logger

    def create_network(self, flags: int) -> SimpleNamespace:
        inputs = [SimpleNamespace(name="wide", shape=(-1, 4)), SimpleNamespace(name="narrow", shape=(-1, 3))]
        return SimpleNamespace(flags=flags, num_inputs=2, get_input=inputs.__getitem__)

    def create_builder_config(self) -> SimpleNamespace:
        config = SimpleNamespace(flags=[], profiles=[], int8_calibrator=None, max_workspace_size=0)
        config.set_flag = config.flags.append
        config.add_optimization_profile = config.profiles.append
        if self.module.release >= (8, 4):
            config.set_memory_pool_limit = lambda pool, size: setattr(config, "pool", (pool, size))
        return config

    def create_optimization_profile(self) -> SimpleNamespace:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *sizes: shapes.update({name: sizes}))

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if self.module.fails:
            self.logger.log(self.module.ILogger.ERROR, "Error Code 2: OutOfMemory\n(no memory)")
            return None
        if getattr(config, "progress_monitor", None):
            config.progress_monitor.phase_start("Building Engine", None, 3)
            assert config.progress_monitor.step_complete("Building Engine", 0) is True
            config.progress_monitor.phase_finish("Building Engine")
        self.module.built.append((network, config))
        return ENGINE


def play_tensorrt(version: str = "10.3.0") -> Any:
    """Return a substitute for NVIDIA's `tensorrt` of that version, as far as edge uses it."""
    module: Any = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__ = version
    module.release = tuple(int(part) for part in version.split(".")[:2])
    module.built, module.fails, module.unreadable = [], False, ""
    plain = {"__init__": lambda self: None}
    module.ILogger = type("ILogger", (), {**plain, "INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2})
    module.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), plain)
    module.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    module.IProfiler = type("IProfiler", (), plain)
    module.BuilderFlag = SimpleNamespace(FP16="fp16", INT8="int8")
    module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    module.TensorIOMode = SimpleNamespace(INPUT="input")
    module.nptype = {"FLOAT": np.float32}.__getitem__
    module.Builder = lambda logger: _PlayedBuilder(module, logger)
    if module.release >= (10, 0):
        module.IProgressMonitor = type("IProgressMonitor", (), plain)

    def parser(_network: Any, _logger: Any) -> SimpleNamespace:
        parse = lambda path: not module.unreadable and Path(path).is_file()  # noqa: E731
        return SimpleNamespace(parse_from_file=parse, num_errors=1, get_error=lambda index: module.unreadable)

    def runtime(logger: Any) -> SimpleNamespace:
        def load(content: bytes) -> Any:
            if bytes(content) == ENGINE:
                return _NamedEngine() if module.release >= (8, 5) else _BoundEngine()
            logger.log(module.ILogger.ERROR, "Error Code 1: Serialization\n(magic tag does not match)")
            return None

        return SimpleNamespace(deserialize_cuda_engine=load)

    module.OnnxParser, module.Runtime = parser, runtime
    return module


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install substitutes for TensorRT of some version and the driver; returns both."""

    def install(version: str = "10.3.0", cuda: PlayedCuda | None = None) -> tuple[Any, PlayedCuda]:
        module, driver = play_tensorrt(version), cuda or PlayedCuda()
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr("runtimes.standalone.tensorrt_build.ctypes.CDLL", lambda name: driver)
        return module, driver

    return install
