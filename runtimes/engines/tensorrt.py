"""TensorRT: NVIDIA's engine for its GPUs, on Jetsons and desktops. Opens engines, and builds them from artifacts.

Device memory is managed through the driver's library, so that only numpy and `tensorrt` are needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, Tuple

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.engine_support.adapter import import_engine, opening, running, tensor_spec
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.measurement.operator_times import WARM_UP_RUNS, OperatorProfile, mean_ms, means
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine, check_settings
from runtimes.standalone.tensorrt_build import BuildError, Driver, Plan, build, engine_logger, engine_path

_BUILT = (".engine", ".plan")
_Shapes = Tuple[Tuple[int, ...], ...]


class Adapter(TensorEngine):
    """Runs on the first GPU. If an artifact has no engine for this machine yet, it is built next to the model."""

    id = "tensorrt"
    formats: tuple[str, ...] = ("tensorrt",)
    requires = "tensorrt"
    own_package = "on a Jetson: sudo apt-get install python3-libnvinfer"
    board_packages = ("numpy",)  # TensorRT itself comes with JetPack, in the one build that fits the board

    def version(self) -> str:
        """Return the installed version. JetPack's package has no wheel metadata."""
        return distribution_version("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt_cu12", "tensorrt_cu13")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the engine, building it first if necessary, which takes minutes; see `TensorEngine.open`."""
        return self._open(artifact, options)

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:
        """Run the model with TensorRT's profiler, which times the layers of the engine; see `TensorEngine.profile`."""
        session = self._open(artifact, options)
        for _ in range(WARM_UP_RUNS):
            session.run(feeds)
        times = session.layer_times()
        total_ms = mean_ms(lambda: session.run(feeds), runs)
        return OperatorProfile(runs, total_ms, means({name: ("", "GPU", total) for name, total in times.items()}, runs))

    def _open(self, artifact: Artifact, options: RunOptions) -> _TensorrtSession:
        check_settings(options.settings, self.settings, self.id)
        if options.device not in ("cpu", "cuda"):  # "cpu" is RunOptions' default
            raise UsageError(f"tensorrt has no device '{options.device}'", "its device: cuda")
        trt = import_engine(self, "tensorrt")
        with _own_errors():
            driver = Driver()
            path = artifact.model if artifact.model.suffix in _BUILT else _build_once(trt, artifact, driver, options)
            return _TensorrtSession(trt, driver, path)


def _build_once(trt: Any, artifact: Artifact, driver: Driver, options: RunOptions) -> Path:
    known = artifact.manifest.conversion.get("tensorrt")
    cache = known.get("cache") if isinstance(known, Mapping) else None
    plan = Plan(artifact.model, artifact.manifest.precision, artifact.path / Path(str(cache)).name if cache else None)
    path = engine_path(plan, trt.__version__, driver)
    if not path.is_file():
        build(trt, plan, path, lambda line: options.note(f"tensorrt: {line}"))
    return path


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        raise EngineError(error.message, error.hint) from error


class _TensorrtSession(CheckedSession):
    """An engine and its device buffers, which are kept as long as the shapes stay the same."""

    def __init__(self, trt: Any, driver: Driver, path: Path) -> None:
        self._trt = trt
        self._messages: list[str] = []
        self._runtime = trt.Runtime(engine_logger(trt, self._messages))
        with opening("tensorrt", path):
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                hint = "an engine only works with the TensorRT version and GPU model that built it: build it here"
                raise InputError(f"tensorrt cannot open {path}: {self._last()}", hint)
            self._tensors = _tensors(trt, self._engine)
            inputs = [spec for spec, is_input in self._tensors if is_input]
            super().__init__(inputs, [spec for spec, is_input in self._tensors if not is_input])
        self._context = self._engine.create_execution_context()
        self._driver = driver
        self._buffers: list[int] = []
        self._shapes: _Shapes = ()

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("tensorrt"):
            self._driver.attach()
            arrays = {spec.name: np.ascontiguousarray(feeds[spec.name]) for spec in self.inputs}
            self._fit(tuple(array.shape for array in arrays.values()))
            outputs = self._outputs()
            for (spec, is_input), address in zip(self._tensors, self._buffers):
                if is_input:
                    self._driver.upload(address, arrays[spec.name].ctypes.data, arrays[spec.name].nbytes)
            if not self._context.execute_v2(self._buffers):
                raise EngineError(f"tensorrt failed to run the model: {self._last()}", "is the GPU's memory full?")
            for (spec, is_input), address in zip(self._tensors, self._buffers):
                if not is_input:
                    self._driver.download(outputs[spec.name].ctypes.data, address, outputs[spec.name].nbytes)
            return outputs

    def layer_times(self) -> Mapping[str, float]:
        """Return a mapping to which every later inference adds the milliseconds of each layer."""
        times: dict[str, float] = {}

        class Profiler(self._trt.IProfiler):  # type: ignore[misc, name-defined] # the module is loaded at run time
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[layer_name] = times.get(layer_name, 0.0) + ms

        self._context.profiler = Profiler()
        return times

    def _fit(self, shapes: _Shapes) -> None:
        """Allocate buffers for inputs of these shapes."""
        if self._buffers and shapes == self._shapes:
            return
        self._free()
        for spec, shape in zip(self.inputs, shapes):
            self._set_shape(spec.name, shape)
        by_name = dict(zip([spec.name for spec in self.inputs], shapes))
        for spec, is_input in self._tensors:
            shape = by_name[spec.name] if is_input else self._shape(spec.name)
            self._buffers.append(self._driver.allocate(max(1, int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)))
        self._shapes = shapes

    def _outputs(self) -> dict[str, Array]:
        return {spec.name: np.empty(self._shape(spec.name), spec.dtype) for spec in self.outputs}

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if hasattr(self._context, "set_input_shape"):
            self._context.set_input_shape(name, shape)
        else:
            self._context.set_binding_shape(self._engine.get_binding_index(name), shape)

    def _shape(self, name: str) -> tuple[int, ...]:
        if hasattr(self._context, "get_tensor_shape"):
            return tuple(self._context.get_tensor_shape(name))
        return tuple(self._context.get_binding_shape(self._engine.get_binding_index(name)))

    def _last(self) -> str:
        return " ".join(self._messages[-1].split())[:300] if self._messages else "it gave no reason"

    def _free(self) -> None:
        for address in self._buffers:
            self._driver.free(address)
        self._buffers = []

    def _close(self) -> None:
        with _own_errors():
            self._driver.attach()
            self._free()
        del self._context, self._engine, self._runtime


def _tensors(trt: Any, engine: Any) -> Sequence[tuple[TensorSpec, bool]]:
    """Return inputs and outputs in the engine's order, and whether each is an input. TensorRT 8.5 renamed the API."""
    if hasattr(engine, "num_io_tensors"):
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        shapes = [engine.get_tensor_shape(name) for name in names]
        dtypes = [engine.get_tensor_dtype(name) for name in names]
    else:
        places = range(engine.num_bindings)
        names = [engine.get_binding_name(place) for place in places]
        inputs = [engine.binding_is_input(place) for place in places]
        shapes = [engine.get_binding_shape(place) for place in places]
        dtypes = [engine.get_binding_dtype(place) for place in places]
    specs = [tensor_spec(name, trt.nptype(dtype), tuple(shape)) for name, dtype, shape in zip(names, dtypes, shapes)]
    return list(zip(specs, inputs))
