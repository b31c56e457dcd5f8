"""OpenVINO: Intel's engine for its CPUs, GPUs and NPUs; reads its own IR, and ONNX."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, Quantization, TensorSpec
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.engine_support.adapter import check_options, choice, import_engine, opening, running, tensor_spec, unique
from runtimes.errors import EngineError, UsageError
from runtimes.host import int8_saturates
from runtimes.measurement.operator_times import WARM_UP_RUNS, OperatorProfile, mean_ms, means
from runtimes.model_files.onnx import check_external_data
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine

# OpenVINO reports each import to Google Analytics unless this package of its cannot be imported. This module runs
# before the engine is imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: Python's "cannot be imported"

# The format has integer tensors, but no place for their scale and zero point. edge keeps them in the model's `rt_info`,
# which OpenVINO stores in the .xml file and otherwise ignores, so that uint8 outputs mean the same as in the source:
# {tensor name: {"scales": [...], "zero_points": [...]}}, as JSON text.
QUANTIZATION = ("edge", "quantization")
_DEVICES = ("cpu", "gpu", "npu", "myriad")


class Adapter(TensorEngine):
    """Opens OpenVINO IR and ONNX models, and by default computes in the precision they were written in."""

    id = "openvino"
    formats: tuple[str, ...] = ("openvino", "onnx")
    requires = "openvino"
    board_packages = ("openvino", "numpy")
    settings: Mapping[str, str] = {
        "inference_precision": "f32: floats stay 32 bits wide; auto: bf16 or f16 where the device is quicker with it",
        "int8": "precise: sums do not saturate in 16 bits on x86 without VNNI, slower there; fast: they may",
    }
    tuned: Mapping[str, Sequence[str]] = {"int8": ("fast",), "inference_precision": ("auto",)}

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return distribution_version("openvino")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `TensorEngine.open`."""
        return self._open(artifact, options, {})

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:
        """Run the model with OpenVINO's counters; see `TensorEngine.profile`."""
        if options.device != "cpu":
            raise UsageError("only the counters of OpenVINO's CPU plugin are read", self.no_profile)
        # By default the plugin pins the thread to a core when an inference begins, and unpins it at the end. Beside
        # other programs these moves take a tenth of the time, outside of all operators.
        session = self._open(artifact, options, {"PERF_COUNT": True, "ENABLE_CPU_PINNING": False})
        for _ in range(WARM_UP_RUNS):
            session.run(feeds)
        before = session.counters(WARM_UP_RUNS)
        total_ms = mean_ms(lambda: session.run(feeds), runs)
        after = session.counters(WARM_UP_RUNS + runs)
        times = {
            name: (kind, kernel, max(0.0, total - before[name][2] if name in before else total))
            for name, (kind, kernel, total) in after.items()
        }
        return OperatorProfile(runs, total_ms, means(times, runs))

    def _open(self, artifact: Artifact, options: RunOptions, more: JsonObject) -> _OpenvinoSession:
        check_options(self, options, _DEVICES)
        config = self._config(options)
        openvino = import_engine(self, "openvino")
        # Up to 2023.0 the API was one level deeper; 2022.3.1 is the last release with a plugin for Movidius sticks.
        is_old = not hasattr(openvino, "Core")
        core = _core(import_engine(self, "openvino.runtime") if is_old else openvino)
        _check_device(core, options.device)
        with opening(self.id, artifact.model, _summary):
            if artifact.model.suffix == ".onnx":
                check_external_data(artifact.model)
            model = core.read_model(str(artifact.model))
            quantization = _read_quantization(model, str(artifact.model))
            compiled = _compile(core, model, artifact.model, options, {**config, **more})
            return _OpenvinoSession(compiled, quantization, is_old)

    def _config(self, options: RunOptions) -> JsonObject:
        if options.device == "myriad":  # its plugin is from 2022, computes in fp16 only, and has none of these
            return {}
        config: JsonObject = {"PERFORMANCE_HINT": "LATENCY"}
        if choice(self, options, "inference_precision", ("f32", "auto")) == "f32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        precise = choice(self, options, "int8", ("precise", "fast")) == "precise"
        if options.device == "cpu":
            if options.threads is not None:
                config["INFERENCE_NUM_THREADS"] = options.threads
            if precise and int8_saturates():
                config["LP_TRANSFORMS_MODE"] = "NO"
        return config


# A counter of an operator that did not run was fused into another.
_EXECUTED = "EXECUTED"


class _OpenvinoSession(CheckedSession):
    def __init__(self, compiled: Any, quantization: Mapping[str, Quantization], is_old: bool) -> None:
        inputs, outputs = _specs(compiled.inputs, quantization), _specs(compiled.outputs, quantization)
        super().__init__(inputs, outputs, _threads(compiled))
        self._is_old = is_old
        self._request = compiled.create_infer_request()
        self._names = [spec.name for spec in self.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("openvino", _summary):
            positions = {position: feeds[spec.name] for position, spec in enumerate(self.inputs)}
            if self._is_old:
                return dict(zip(self._names, [np.array(one) for one in self._request.infer(positions).values()]))
            results = self._request.infer(positions, share_inputs=True, share_outputs=False)
            return dict(zip(self._names, results.to_tuple()))

    def counters(self, runs: int) -> dict[str, tuple[str, str, float]]:
        """Return {name: (type, kernel, sum of its times in ms)}, if there were `runs` inferences.

        The CPU plugin reports the mean of all inferences since the model was compiled: `PerfCount::avg` in
        src/plugins/intel_cpu/src/perf_count.h of github.com/openvinotoolkit/openvino.
        """
        return {
            one.node_name: (one.node_type, one.exec_type, one.real_time.total_seconds() * 1e3 * runs)
            for one in self._request.profiling_info
            if _EXECUTED in str(one.status)
        }

    def _close(self) -> None:
        del self._request


@lru_cache(maxsize=None)
def _core(openvino: Any) -> Any:
    """Return the single `Core` of this process.

    On Linux the CPU plugin of each core installs a signal stack for the thread, and restores the previous one when the
    core is destroyed. With two overlapping cores a freed stack can be restored, and the next signal is fatal.
    Source: src/plugins/intel_cpu/src/sigstack_manager.cpp of github.com/openvinotoolkit/openvino.
    """
    return openvino.Core()


def _check_device(core: Any, device: str) -> None:
    present = sorted({name.split(".")[0].lower() for name in core.available_devices})
    if device not in present:
        hint = f"devices that it sees: {', '.join(present)}; check the device and its driver"
        raise EngineError(f"openvino sees no {device.upper()} on this machine", hint)


def _compile(core: Any, model: Any, path: Path, options: RunOptions, config: Mapping[str, JsonValue]) -> Any:
    try:
        return core.compile_model(model, options.device.upper(), dict(config))
    except Exception as error:
        message = f"openvino cannot load {path} on {options.device.upper()}: {_summary(error)}"
        raise EngineError(message, "try another engine or device") from error


def _threads(compiled: Any) -> int | None:
    try:
        return int(compiled.get_property("INFERENCE_NUM_THREADS"))
    except RuntimeError:  # only the CPU has it
        return None


def _specs(ports: Sequence[Any], quantization: Mapping[str, Quantization]) -> list[TensorSpec]:
    names = unique([_name(port) for port in ports])
    return [_spec(name, port, quantization.get(name)) for name, port in zip(names, ports)]


def write_quantization(model: Any, specs: Iterable[TensorSpec]) -> None:
    """Store the scales of the inputs and outputs that have any in an `openvino.Model`."""
    found = {
        spec.name: {"scales": list(spec.quantization.scales), "zero_points": list(spec.quantization.zero_points)}
        for spec in specs
        if spec.quantization is not None
    }
    if found:
        model.set_rt_info(json.dumps(found, sort_keys=True), list(QUANTIZATION))


def _read_quantization(model: Any, source: str) -> dict[str, Quantization]:
    """Return the scales by tensor name. Raises InputError, naming `source`, if the entry is not what edge writes."""
    # OpenVINO before 2023.0 has no such information.
    if not hasattr(model, "has_rt_info") or not model.has_rt_info(list(QUANTIZATION)):
        return {}
    fields = Fields({"quantization": _parse(str(model.get_rt_info(list(QUANTIZATION)).value))}, source)
    entries = fields.mapping("quantization")
    return {name: Quantization.read(Fields(entry, f"the quantization of '{name}'")) for name, entry in entries.items()}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # which is not a mapping


def _name(port: Any) -> str:
    return str(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


def _spec(name: str, port: Any, quantization: Quantization | None) -> TensorSpec:
    sizes = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return tensor_spec(name, port.get_element_type().to_dtype(), sizes, quantization)


def _summary(error: BaseException) -> str:
    """Return the last line of the error that is not a source location."""
    places = ("Exception from ", "Check '")
    lines = [line.strip() for line in str(error).splitlines()]
    messages = [line for line in lines if line and not line.startswith(places)]
    return (messages[-1] if messages else " ".join(lines) or type(error).__name__)[:300]
