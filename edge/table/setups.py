"""List the setups that a machine can measure, and what the others would need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge.benchmark.harness import BROWSER_WORKER, ENGINE_WORKER
from edge.machine.accelerators import JETSON
from runtimes.host.schema import MachineFacts

# Google's file of 2019 ran on one thread, the interpreter's default.
PUBLISHED_TFLITE_THREADS = 1
THIS_MACHINE = "this machine"
# The default engines on boards: PyTorch and TensorFlow need gigabytes of disk space.
_ON_BOARDS = ("litert", "onnxruntime", "openvino", "edgetpu", "tensorrt")
# The default models on emulated boards, where a float inference takes seconds, and OpenVINO's fp16 fifteen of them.
_ON_EMULATED = ("onnx-fp32", "tflite-int8", "tflite-int8-logits", "tflite-2019", "tflite-2019-logits")


@dataclass(frozen=True, kw_only=True)
class TableSetup:
    """A row that can be measured.

    id, title: The setup's id, and its name for people.
    artifact: The id of a recipe in `edge.table.recipes`.
    runtime: The engine's id.
    threads: The number of threads; None leaves it to the engine.
    device, settings: As in `runtimes.jobs.EngineOptions`.
    default: Whether it is measured if the user names no setups.
    host: The board that it runs on; None is this machine.
    emulated: Whether the board's processor is emulated, which makes times meaningless.
    worker: The module of the process that measures it.
    """

    id: str
    title: str
    artifact: str
    runtime: str
    threads: int | None
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    default: bool = True
    host: str | None = None
    emulated: bool = False
    worker: str = ENGINE_WORKER

    @property
    def where(self) -> str:
        """The machine, as rows name it."""
        return self.host or THIS_MACHINE

    @property
    def full_title(self) -> str:
        """The machine and the setup, as a row shows them."""
        return f"{self.where}, {self.title}"


@dataclass(frozen=True, kw_only=True)
class AbsentSetup:
    """A row that cannot be measured.

    id, title: The setup's id, and its name for people.
    needs: What is missing.
    model: The recipe of the model, if that could not be built.
    """

    id: str
    title: str
    needs: str
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Variant:
    """An engine with a model; becomes one setup for each thread count worth measuring."""

    id: str
    title: str
    artifact: str
    runtime: str
    settings: Mapping[str, str] = field(default_factory=dict)
    single_thread: bool = True
    all_threads: bool = True


_PREDICT = {"call": "predict"}
_COMPILED = {"call": "compiled"}
_FAST_INT8 = {"int8": "fast"}

_CPU = (
    _Variant(
        id="keras-predict",
        title="Keras float32, predict (as published)",
        artifact="keras-fp32",
        runtime="keras",
        settings=_PREDICT,
    ),
    _Variant(
        id="keras-compiled",
        title="Keras float32, compiled call",
        artifact="keras-fp32",
        runtime="keras",
        settings=_COMPILED,
    ),
    _Variant(id="torch-fp32", title="PyTorch float32", artifact="pt2-fp32", runtime="torch"),
    _Variant(id="onnxruntime-fp32", title="ONNX Runtime float32", artifact="onnx-fp32", runtime="onnxruntime"),
    _Variant(id="tflite-fp32", title="TFLite float32", artifact="tflite-fp32", runtime="litert"),
    _Variant(id="tflite-int8", title="TFLite int8", artifact="tflite-int8", runtime="litert"),
    _Variant(
        id="tflite-int8-logits",
        title="TFLite int8, logit head",
        artifact="tflite-int8-logits",
        runtime="litert",
        all_threads=False,
    ),
    _Variant(
        id="tflite-2019",
        title="TFLite uint8, Google's file of 2019",
        artifact="tflite-2019",
        runtime="litert",
        all_threads=False,
    ),
    _Variant(
        id="tflite-2019-logits",
        title="TFLite uint8 of 2019, logit head",
        artifact="tflite-2019-logits",
        runtime="litert",
        all_threads=False,
    ),
    _Variant(id="openvino-fp32", title="OpenVINO FP32", artifact="openvino-fp32", runtime="openvino"),
    _Variant(id="openvino-fp16", title="OpenVINO FP16", artifact="openvino-fp16", runtime="openvino"),
    _Variant(id="openvino-int8", title="OpenVINO int8", artifact="openvino-int8", runtime="openvino"),
)
# On CPUs whose int8 kernels saturate, the default above is the precise setting; this setup shows what that costs.
_SATURATING = _Variant(
    id="openvino-int8-fast",
    title="OpenVINO int8, saturating kernels",
    artifact="openvino-int8",
    runtime="openvino",
    settings=_FAST_INT8,
)

_CUDA = (
    TableSetup(
        id="torch-cuda",
        title="PyTorch float32, CUDA",
        artifact="pt2-fp32",
        runtime="torch",
        threads=None,
        device="cuda",
    ),
    TableSetup(
        id="onnxruntime-cuda",
        title="ONNX Runtime float32, CUDA",
        artifact="onnx-fp32",
        runtime="onnxruntime",
        threads=None,
        device="cuda",
    ),
    TableSetup(
        id="onnxruntime-tensorrt",
        title="ONNX Runtime float32, TensorRT",
        artifact="onnx-fp32",
        runtime="onnxruntime",
        threads=None,
        device="tensorrt",
    ),
)
# PyPI's wheels for ARM compute only on the CPU; a Jetson's GPU is used by the TensorRT of its JetPack.
_JETSON = TableSetup(
    id="tensorrt-fp16", title="TensorRT FP16", artifact="tensorrt-fp16", runtime="tensorrt", threads=None, device="cuda"
)
# One thread, like the native row next to it; `edge bench --on browser` measures several.
_BROWSER = TableSetup(
    id="browser-tflite-int8-1t",
    title="browser, TFLite int8, 1 thread",
    artifact="browser-tflite-int8",
    runtime="litert_js",
    threads=1,
    worker=BROWSER_WORKER,
)
_CORAL = TableSetup(
    id="coral-usb", title="Coral Edge TPU, TFLite uint8", artifact="edgetpu-2019", runtime="edgetpu", threads=None
)


def setups_for(machine: MachineFacts, devices: Collection[str]) -> list[TableSetup]:
    """Return the setups of a machine.

    machine: The result of `runtimes.host.facts`.
    devices: The ids of the attached accelerators.
    """
    cores = int(machine["cpu"]["usable_cores"] or 1)
    setups = [setup for variant in _variants(machine) for setup in _threaded(variant, cores)]
    if _has_nvidia(machine):
        setups.extend(_CUDA)
    if _is_jetson(devices):
        setups.append(_JETSON)
    if _has_coral(devices):
        setups.append(_CORAL)
    return setups


def setups_in_browser(browser: str | None) -> tuple[list[TableSetup], list[AbsentSetup]]:
    """Return the setup of this machine's browser, or what it would need.

    browser: The program; None if there is none.
    """
    if browser is None:
        return [], [
            AbsentSetup(id="browser", title=f"{THIS_MACHINE}, browser", needs="Chromium or Chrome (none found)")
        ]
    return [_BROWSER], []


def setups_of_board(host: str, machine: MachineFacts, devices: Collection[str]) -> list[TableSetup]:
    """Return the setups of a board; their ids contain the host, because several boards have the same setups."""
    emulated = bool(machine["os"]["emulated"])

    def is_default(setup: TableSetup) -> bool:
        # On an emulated processor more threads give the same outputs, and times are meaningless.
        is_slow = emulated and (setup.artifact not in _ON_EMULATED or setup.threads != 1)
        return setup.default and setup.runtime in _ON_BOARDS and not is_slow

    return [
        replace(setup, id=f"{setup.id}@{host}", host=host, emulated=emulated, default=is_default(setup))
        for setup in setups_for(machine, devices)
    ]


def absent_devices(machine: MachineFacts, devices: Collection[str], where: str = THIS_MACHINE) -> list[AbsentSetup]:
    """Return the accelerators of the published table that are not attached to the machine."""
    rows = []
    if not _has_nvidia(machine) and not _is_jetson(devices):
        rows.append(AbsentSetup(id="cuda", title=f"{where} + NVIDIA GPU", needs="an NVIDIA GPU (none found)"))
    if not _has_coral(devices):
        rows.append(
            AbsentSetup(id="coral-usb", title=f"{where} + Coral", needs="a Coral USB Accelerator (none attached)")
        )
    return rows


def _variants(machine: MachineFacts) -> Iterator[_Variant]:
    yield from _CPU
    if machine["cpu"]["int8_saturates"]:
        yield _SATURATING


def _threaded(variant: _Variant, cores: int) -> Iterator[TableSetup]:
    counts = ([1] if variant.single_thread else []) + ([cores] if variant.all_threads and cores > 1 else [])
    for count in counts or [1]:
        yield TableSetup(
            id=f"{variant.id}-{count}t",
            title=f"{variant.title}, {count} thread{'s' if count > 1 else ''}",
            artifact=variant.artifact,
            runtime=variant.runtime,
            threads=count,
            settings=variant.settings,
            # Published with TensorFlow's default, all threads; the setup with one thread has to be named.
            default=not (variant.settings == _PREDICT and count == 1 and cores > 1),
        )


def _has_nvidia(machine: MachineFacts) -> bool:
    return bool(machine["accelerators"]["nvidia_gpus"])


def _is_jetson(devices: Collection[str]) -> bool:
    return JETSON.id in devices


def _has_coral(devices: Collection[str]) -> bool:
    return any(device.startswith("coral-") for device in devices)
