"""ONNX Runtime: the reference engine of ONNX, on the CPU, or on NVIDIA's GPUs through CUDA or TensorRT."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Mapping, Sequence, TypedDict

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.engine_support.adapter import check_options, choice, import_engine, opening, running, tensor_spec
from runtimes.errors import EngineError, InputError
from runtimes.host import has_int8_dot_product
from runtimes.measurement.operator_times import WARM_UP_RUNS, OperatorProfile, OperatorTime, mean_ms, means
from runtimes.model_files.onnx import check_external_data
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine

# Device → execution providers, in the order in which ONNX Runtime offers them each node.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_TF32 = "NVIDIA_TF32_OVERRIDE"
_PRECISE = {"session.x64quantprecision": "1"}  # int8 weights become uint8, whose sums do not saturate in 16 bits
# int8 in float instead, slower. That rewriting stops at weights that share a zero point ("Attempt to replace the
# existing tensor", onnxruntime/core/optimizer/qdq_transformer/avx2_weight_s8_to_u8.cc).
_IN_FLOAT = {"session.disable_quant_qdq": "1"}
_SHARED_ZERO_POINT = "AddInitializerWithOrtValue"
_MIXED_TYPES = "com.microsoft.QLinearConv"  # it has no kernel for uint8 weights of an int8 input
# ONNX Runtime's exceptions that are not about the file: a missing kernel, a failing provider or device.
ENGINE_FAULTS = ("NotImplemented", "EPFail", "EngineError", "DeviceReset")
# https://onnxruntime.ai/docs/api/c/ names the element types: tensor(float), tensor(uint8), …
_DTYPES = {"float": "float32", "double": "float64"}
# The file, line and C++ function at which it failed, in front of the reason.
_CODE = re.compile(
    r"/\S+\.(?:cc|h):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?:::<lambda\([^)]*\)>)?(?: const)?(?: \[with [^\]]*\])? ?"
)


class Adapter(TensorEngine):
    """Opens ONNX models. External data must be inside the model's folder; custom operators are not supported."""

    id = "onnxruntime"
    formats: tuple[str, ...] = ("onnx",)
    requires = "onnxruntime"
    board_packages = ("onnxruntime", "numpy")
    settings: Mapping[str, str] = {
        "inference_precision": "f32: floats stay 32 bits wide; auto: TF32 on NVIDIA GPUs that have it",
        "int8": "precise: sums do not saturate in 16 bits on x86 without VNNI, slower there; fast: they may",
        "spinning": "on: threads wait busily for work, which is quicker; off: they sleep, which spares a shared CPU",
    }
    tuned: Mapping[str, Sequence[str]] = {"int8": ("fast",), "spinning": ("off",)}

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return distribution_version("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `TensorEngine.open`."""
        return self._open(artifact, options, None)

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:
        """Run the model with ONNX Runtime's profiler; see `TensorEngine.profile`."""
        with tempfile.TemporaryDirectory(prefix="edge-profile-") as folder:
            session = self._open(artifact, options, Path(folder) / "run")
            for _ in range(WARM_UP_RUNS):
                session.run(feeds)
            total_ms = mean_ms(lambda: session.run(feeds), runs)
            events = session.end_profiling()
        return OperatorProfile(runs, total_ms, _operators(events, runs))

    def _open(self, artifact: Artifact, options: RunOptions, profile: Path | None) -> _OnnxSession:
        check_options(self, options, _PROVIDERS)
        entries = self._entries(options)
        _set_tf32(choice(self, options, "inference_precision", ("f32", "auto")) == "auto")
        ort = import_engine(self, "onnxruntime")
        state = ort.capi.onnxruntime_pybind11_state
        faults = tuple(getattr(state, name) for name in ENGINE_FAULTS if hasattr(state, name))
        _check_provider(ort, options.device)
        with opening(self.id, artifact.model, _summary, faults):
            check_external_data(artifact.model)
            try:
                session = _load(ort, artifact.model, entries, options, profile)
            except (state.Fail, state.NotImplemented) as error:
                others = _without_rewriting(entries, str(error))
                if others == entries:
                    raise
                session = _load(ort, artifact.model, others, options, profile)
            return _OnnxSession(session, options.threads)

    def _entries(self, options: RunOptions) -> Mapping[str, str]:
        entries = {"session.intra_op.allow_spinning": "1"}
        if choice(self, options, "spinning", ("on", "off")) == "off":
            entries["session.intra_op.allow_spinning"] = "0"
        if choice(self, options, "int8", ("precise", "fast")) == "precise" and not has_int8_dot_product():
            entries.update(_PRECISE)
        return entries


_KERNEL = "_kernel_time"


class _Event(TypedDict):
    """An event of ONNX Runtime's profile: times in microseconds; `args` has op_name and provider."""

    name: str
    cat: str
    ts: int
    dur: int
    args: dict[str, str]


class _OnnxSession(CheckedSession):
    def __init__(self, session: Any, threads: int | None) -> None:
        super().__init__(_specs(session.get_inputs()), _specs(session.get_outputs()), threads)
        self._session = session
        self._names = [spec.name for spec in self.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("onnxruntime", _summary):
            # An output may alias memory of the session's initializers: return copies.
            values = self._session.run(self._names, feeds)
            return {name: np.array(value) for name, value in zip(self._names, values)}

    def end_profiling(self) -> list[_Event]:
        """Return the events of the profiler, if the session was opened with it."""
        with running("onnxruntime", _summary):
            events: list[_Event] = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        return events

    def _close(self) -> None:
        del self._session


def _operators(events: Sequence[_Event], runs: int) -> list[OperatorTime]:
    """Sum the kernels of the last `runs` inferences. Times are in microseconds; names are those after fusion."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    first = starts[-runs] if len(starts) >= runs else 0
    times: dict[str, tuple[str, str, float]] = {}
    for event in events:
        name = event["name"]
        if event["cat"] != "Node" or not name.endswith(_KERNEL) or event["ts"] < first:
            continue
        name, details = name[: -len(_KERNEL)], event["args"]
        before = times[name][2] if name in times else 0.0
        provider = details.get("provider", "").replace("ExecutionProvider", "")
        times[name] = (details.get("op_name", ""), provider, before + event["dur"] / 1e3)
    return means(times, runs)


def _set_tf32(allowed: bool) -> None:
    """Disable TF32 by the one switch that TensorRT and cuDNN share: process-wide, and only before CUDA is first used.

    https://github.com/alibaba/DeepRec/blob/main/docs/docs_en/NVIDIA-TF32.md
    """
    if allowed:
        os.environ.pop(_TF32, None)
    else:
        os.environ[_TF32] = "0"


def _check_provider(ort: Any, device: str) -> None:
    """Raise EngineError for a missing provider; ONNX Runtime itself would only warn and fall back to the CPU."""
    wanted = _PROVIDERS[device][0]
    if wanted not in ort.get_available_providers():
        hint = "on NVIDIA machines: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        raise EngineError(f"this build of onnxruntime has no {wanted}", hint)


def _load(ort: Any, model: Path, entries: Mapping[str, str], options: RunOptions, profile: Path | None) -> Any:
    session_options = ort.SessionOptions()
    if profile is not None:
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(profile)
    session_options.log_severity_level = 4  # what fails is raised too; its warnings are about graph optimization
    session_options.inter_op_num_threads = 1
    session_options.intra_op_num_threads = options.threads or 0
    for key, value in entries.items():
        session_options.add_session_config_entry(key, value)
    wanted = _PROVIDERS[options.device]
    available = ort.get_available_providers()
    providers = [provider for provider in wanted if provider in available]
    session = ort.InferenceSession(str(model), session_options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != wanted[0]:
        hint = "check the driver and that the CUDA, cuDNN and TensorRT libraries are those it was built for"
        raise EngineError(f"onnxruntime could not start {wanted[0]} and fell back to the CPU", hint)
    return session


def _without_rewriting(entries: Mapping[str, str], error: str) -> Mapping[str, str]:
    """Return the entries for a model on which making int8 weights uint8 fails; `entries` if it is not to blame."""
    if entries.keys() & _PRECISE and _SHARED_ZERO_POINT in error:
        return {**entries, **_IN_FLOAT}
    if entries.keys() & _PRECISE and _MIXED_TYPES in error:
        return {key: value for key, value in entries.items() if key not in _PRECISE}
    return entries


def _specs(arguments: Sequence[Any]) -> list[TensorSpec]:
    return [_spec(argument) for argument in arguments]


def _spec(argument: Any) -> TensorSpec:
    if not argument.type.startswith("tensor("):
        hint = "use a model with numeric tensors"
        if argument.type.startswith("seq(map("):
            hint = "ZipMap makes dictionaries of probabilities: export without it (skl2onnx: options={'zipmap': False})"
        raise InputError(f"'{argument.name}' has the type {argument.type} and is not a tensor", hint)
    element = argument.type[len("tensor(") : -1]
    return tensor_spec(argument.name, _DTYPES.get(element, element), argument.shape)


def _summary(error: BaseException) -> str:
    """Remove the prefix `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : ` and places in its code, and join the lines."""
    text = " ".join(str(error).split()) or type(error).__name__
    return _CODE.sub("", text.split(" : ", 3)[-1])[:300]
