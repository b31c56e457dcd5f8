"""Build a TensorRT engine from an artifact on the machine that will run it. Engines are kept per type of machine.

    python3 build_engine.py [FOLDER]

FOLDER is an artifact of the format `tensorrt`, by default the one that contains this file. The engine's name ends in a
key of everything it depends on: the model, TensorRT, CUDA, the GPU's compute capability, precision and batch. If an
engine of that name exists, nothing is built. Memory is asked with POSIX's `sysconf`, which boards have.

This file is self-contained and runs under Python 3.6, the only version that the Jetson Nano's TensorRT supports. Every
artifact for TensorRT contains a copy of it. It needs NVIDIA's `tensorrt` module and the driver's libcuda.
"""

import ctypes
import hashlib
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

Report = Callable[[str], object]

# https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
_MAJOR, _MINOR = 75, 76
_MAX_WORKSPACE_BYTES = 2**30
_CACHE_HEAD = re.compile(r"^TRT-\d+-EntropyCalibration2")
_NO_DRIVER = "check that this machine has an NVIDIA GPU, and its driver (on a Jetson: JetPack)"
_NO_TENSORRT = "JetPack brings it: sudo apt-get install python3-libnvinfer-dev, and use the system's own python3"


class BuildError(Exception):
    """The engine was not built; with a message and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Plan:
    """The inputs of a build.

    An ONNX file, precision, a calibration cache or None, the size of free dimensions, and whether layers that are not
    int8 may be computed in fp16.
    """

    def __init__(
        self, model: Path, precision: str, cache: Optional[Path] = None, batch: int = 1, in_half: bool = True
    ) -> None:
        self.model = model
        self.precision = precision
        self.cache = cache
        self.batch = batch
        self.in_half = in_half


class Driver:
    """NVIDIA's driver through libcuda: versions and device memory. Raises BuildError if there is no driver."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BuildError(f"NVIDIA's driver is missing: {error}", _NO_DRIVER) from None
        self._device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self._call("cuCtxSetCurrent", self._context)

    def cuda(self) -> str:
        """Return the newest CUDA version that the driver supports, such as 10.2."""
        number = self._number("cuDriverGetVersion")
        return f"{number // 1000}.{number % 1000 // 10}"

    def capability(self) -> str:
        """Return the GPU's compute capability, such as 5.3."""
        major, minor = (self._number("cuDeviceGetAttribute", which, self._device) for which in (_MAJOR, _MINOR))
        return f"{major}.{minor}"

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes on the device; returns the address."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return int(address.value)

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, host: int, size: int) -> None:
        """Copy `size` bytes from the host's address `host` to the device."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(host), ctypes.c_size_t(size))

    def download(self, host: int, address: int, size: int) -> None:
        """Copy `size` bytes from the device to the host's address `host`."""
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(host), ctypes.c_uint64(address), ctypes.c_size_t(size))

    def attach(self) -> None:
        """Make the device current in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def _number(self, function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self._call(function, ctypes.byref(value), *arguments)
        return int(value.value)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._cuda, function)(*arguments)
        if status != 0:
            raise BuildError(f"NVIDIA's driver fails in {function} with error {status}", _NO_DRIVER)


def plan_of(folder: Path) -> Plan:
    """Read the plan of the artifact in `folder`. Raises BuildError if it is not an artifact for TensorRT."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        known = manifest["conversion"]["tensorrt"]
        cache = known["cache"]
        model = folder / Path(manifest["model"]).name
        in_half = known.get("float") != "fp32"
        return Plan(model, manifest["precision"], folder / Path(cache).name if cache else None, in_half=in_half)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} has no artifact for TensorRT: {error!r}"
        raise BuildError(message, "make one with: edge convert MODEL --for jetson-nano") from None


def engine_path(plan: Plan, version: str, driver: Driver) -> Path:
    """Return the path of the engine for this machine: next to the model, with the key in its name."""
    parts = [_digest(plan.model), version, driver.cuda(), driver.capability(), plan.precision]
    parts += [str(plan.batch), _digest(plan.cache) if plan.cache else "", *([] if plan.in_half else ["fp32"])]
    key = hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()[:16]
    return plan.model.with_name(f"{plan.model.stem}-{key}.engine")


def build(trt: Any, plan: Plan, path: Path, report: Report) -> None:
    """Build the engine and write it to `path` atomically; `report` is called with lines of progress."""
    errors: List[str] = []
    logger = engine_logger(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(plan.model)):
        reason = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        hint = "see what it cannot build: edge check MODEL.onnx --for DEVICE"
        raise BuildError(f"TensorRT {trt.__version__} cannot read {plan.model}: {_line(reason)}", hint)
    config = builder.create_builder_config()
    _set_workspace(trt, config)
    keep = [_set_precision(trt, config, plan), _set_monitor(trt, config, report)]
    _set_shapes(builder, config, network, plan.batch)
    with _Heartbeat(report):
        engine = builder.build_serialized_network(network, config)
    del keep
    if engine is None:
        reason = errors[-1] if errors else "it gave no reason"
        hint = "close other programs, as a build needs much memory; a swap file helps on small boards"
        raise BuildError(f"TensorRT {trt.__version__} built no engine: {_line(reason)}", hint)
    _write(path, engine)


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.EXPLICIT_BATCH) if _release(trt) < (10, 0) else 0


def _set_workspace(trt: Any, config: Any) -> None:
    size = min(_MAX_WORKSPACE_BYTES, _memory() // 4)
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = size


def _set_precision(trt: Any, config: Any, plan: Plan) -> Any:
    """Set flags up to TensorRT 10; later releases read all of it from the graph. Returns objects to keep alive."""
    if _release(trt) >= (11, 0):
        return None
    if plan.precision in ("fp16", "int8") and plan.in_half:
        config.set_flag(trt.BuilderFlag.FP16)
    if plan.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if not plan.cache:
        return None
    config.int8_calibrator = _calibrator(trt, plan.cache)
    return config.int8_calibrator


def _calibrator(trt: Any, path: Path) -> Any:
    """Provide ranges from the cache alone, without data. The cache's header must name the release that reads it."""
    text = _CACHE_HEAD.sub(f"TRT-{_number(trt)}-EntropyCalibration2", path.read_text(encoding="ascii"))
    base: Any = trt.IInt8EntropyCalibrator2

    class Calibrator(base):  # type: ignore[misc] # a class of a library without types
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, _names: Any) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return text.encode("ascii")

        def write_calibration_cache(self, _cache: Any) -> None:
            return None

    return Calibrator()


def _set_shapes(builder: Any, config: Any, network: Any, batch: int) -> None:
    """Create a profile in which every free dimension is `batch`."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = [tensor for tensor in inputs if any(size < 0 for size in tensor.shape)]
    if not free:
        return
    profile = builder.create_optimization_profile()
    for tensor in free:
        fixed = tuple(batch if size < 0 else size for size in tensor.shape)
        profile.set_shape(tensor.name, fixed, fixed, fixed)
    config.add_optimization_profile(profile)


def _set_monitor(trt: Any, config: Any, report: Report) -> Any:
    """Report build phases on TensorRT 10 and later. Returns objects to keep alive."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc] # a class of a library without types
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            if parent_phase is None:
                report(f"{phase_name} ({num_steps} steps)")

        def step_complete(self, _phase_name: str, _step: int) -> bool:
            return True

        def phase_finish(self, phase_name: str) -> None:
            report(f"{phase_name}: done")

    config.progress_monitor = Monitor()
    return config.progress_monitor


class _Heartbeat:
    """Reports a line every ten seconds: a build takes minutes, and older releases report nothing."""

    def __init__(self, report: Report, every_s: float = 10.0) -> None:
        self._report, self._every_s = report, every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        start = time.monotonic()
        while not self._done.wait(self._every_s):
            self._report(f"building for {time.monotonic() - start:.0f} s")


def engine_logger(trt: Any, errors: List[str]) -> Any:
    """Collects TensorRT's log, which holds the reason when a call returns None."""
    base: Any = trt.ILogger

    class Logger(base):  # type: ignore[misc] # a class of a library without types
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors.append(str(message))

    return Logger()


def _release(trt: Any) -> Tuple[int, ...]:
    return tuple(int(part) for part in trt.__version__.split(".")[:2])


def _number(trt: Any) -> int:
    """Return NV_TENSORRT_VERSION as in its headers: 8201 for 8.2.1, 100300 for 10.3.0."""
    major, minor, patch = (int(part) for part in trt.__version__.split(".")[:3])
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return _MAX_WORKSPACE_BYTES


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _write(path: Path, content: Any) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(memoryview(content))
        partial.replace(path)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        hint = "copy the folder to a disk with room, and write permission"
        raise BuildError(f"{path} cannot be written: {error.strerror}", hint) from None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def main(arguments: List[str]) -> int:
    """Build the engine if it is missing, and print its path."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print((__doc__ or "").strip())
        return 0 if arguments in (["-h"], ["--help"]) else 2
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
    try:
        print(_build_once(folder))
    except BuildError as error:
        print(f"{error.message}\n  {error.hint}", file=sys.stderr)
        return 4
    return 0


def _build_once(folder: Path) -> Path:
    plan = plan_of(folder)
    try:
        import tensorrt
    except ImportError as error:
        raise BuildError(f"this Python has no tensorrt: {error}", _NO_TENSORRT) from None
    path = engine_path(plan, tensorrt.__version__, Driver())
    if not path.exists():
        build(tensorrt, plan, path, lambda line: print(line, file=sys.stderr))
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
