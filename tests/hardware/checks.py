"""What is checked on each kind of hardware: commands of edge as a user types them, and what their answers must hold.

A check is a list of words after `edge`, and functions that say what is wrong with the answer. Checks are in order: what
one writes, such as an artifact in `{out}`, the next ones may use. Words in braces are replaced, see `outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Answer = Any  # the JSON that the command printed
# Returns what is wrong with an answer, or nothing.
Expectation = Callable[[Answer], str]
RUNS = ("--protocol", "published", "--runs", "50", "--rounds", "2")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A command of edge, and what must be true of its answer.

    name: What it shows.
    simulated: What stood in for the hardware until now.
    words: The words after `edge`; --json is added.
    expect: Each returns what is wrong, or nothing.
    needs: A check without which this one makes no sense.
    where: "here" or "board" if it is left out on the other; empty: both.
    """

    name: str
    simulated: str
    words: Sequence[str]
    expect: Sequence[Expectation] = ()
    needs: str = ""
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of hardware: what it is for people, and its checks. `on_board`: it is reached by --on HOST."""

    title: str
    on_board: bool
    checks: Sequence[Check]
    notes: Sequence[str] = field(default_factory=tuple)


def found(*devices: str) -> Expectation:
    """Return an expectation of `edge devices`: that one of the accelerators is there."""

    def check(answer: Answer) -> str:
        there = [one["id"] for one in answer["accelerators"] if one["present"]]
        return "" if set(devices) & set(there) else f"none of {', '.join(devices)} was found, but: {there or 'nothing'}"

    return check


def measured(engine: str, **values: object) -> Expectation:
    """Return an expectation of `edge bench`: that every row was measured, by that engine, on no emulator."""

    def check(answer: Answer) -> str:
        for row in answer:
            if row["status"] != "ok":
                return f"{row['setup']}: {row['status']}: {row.get('message', '')}"
            if row["runtime"] != engine:
                return f"{row['setup']}: measured by {row['runtime']}, not {engine}"
            if (row["machine"] or {}).get("emulated"):
                return "the machine is emulated"
            wrong = {key: row.get(key) for key, value in values.items() if row.get(key) != value}
            if wrong:
                return f"{row['setup']}: {wrong}, not {dict(values)}"
        return "" if answer else "nothing was measured"

    return check


def has_conditions(*keys: str) -> Expectation:
    """Return an expectation of `edge bench`: that each round knows these conditions of the board."""

    def check(answer: Answer) -> str:
        for row in answer:
            for part in row["rounds"]:
                before = (part["conditions"] or {}).get("before") or {}
                unknown = [key for key in keys if before.get(key) is None]
                if unknown:
                    return f"{row['setup']}: unknown conditions: {', '.join(unknown)}"
        return ""

    return check


def has_energy(answer: Answer) -> str:
    """Return what is wrong with the energy of `edge bench`'s rows."""
    without = [row for row in answer if row["energy_per_run_j"] is None]
    return f"no energy: {without[0].get('energy_note')}" if without else ""


def passed(answer: Answer) -> str:
    """Return what is wrong with the answer of `edge verify` or `edge deploy`."""
    return "" if answer["passed"] else str(answer["message"])


def table_row(setup: str) -> Expectation:
    """Return an expectation of `edge table`: that the setup was measured, with right predictions."""

    def check(answer: Answer) -> str:
        rows = [row for row in answer if row["id"].startswith(setup) and row["kind"] != "published"]
        if not rows or rows[0]["kind"] != "measured":
            return f"{setup} was not measured: {rows[0]['source'] if rows else 'no row'}"
        agreement: Mapping[str, Any] | None = rows[0].get("agreement")
        if agreement and agreement["same_top1"] < 0.97 * agreement["pictures"]:
            return f"{setup}: the same top class as float Keras for {agreement['same_top1']} of {agreement['pictures']}"
        return ""

    return check


_ON = ("--on", "{host}")
_CORAL = Kind(
    title="Coral Edge TPU (USB, M.2, Dev Board)",
    on_board=False,
    notes=("Run it on the machine with the stick, or name a board with --on.",),
    checks=(
        Check(
            name="the accelerator is found",
            simulated="files of sysfs",
            words=("devices", "{on}"),
            expect=(found("coral-usb", "coral-m2", "coral-dev-board"),),
        ),
        Check(name="what is wrong with it", simulated="files of sysfs", words=("doctor", "{on}")),
        Check(
            name="a compiled model is measured",
            simulated="a stand-in for libedgetpu.so.1 that claims the compiled operator",
            words=("bench", "{artifacts}/edgetpu-int8", *RUNS, "{on}"),
            expect=(measured("edgetpu"),),
        ),
        Check(
            name="the row of the table",
            simulated="the same stand-in",
            words=("table", "--setup", "coral-usb", "{on}"),
            expect=(table_row("coral-usb"),),
        ),
        Check(
            name="its outputs are those of its source",
            simulated="the same stand-in",
            words=("verify", "{artifacts}/edgetpu-int8"),
            expect=(passed,),
            where="here",
        ),
        Check(
            name="it is deployed, and its outputs are those of its source",
            simulated="the same stand-in",
            words=("deploy", "{artifacts}/edgetpu-int8", "{host}"),
            expect=(passed,),
            where="board",
        ),
    ),
)
_JETSON = Kind(
    title="NVIDIA Jetson",
    on_board=True,
    checks=(
        Check(name="the board is recognized", simulated="files of sysfs and /proc", words=("devices", *_ON)),
        Check(name="what is wrong with it", simulated="files of sysfs and /proc", words=("doctor", *_ON)),
        Check(
            name="an artifact for TensorRT is written",
            simulated="nothing",
            words=(
                "convert",
                "{artifacts}/onnx-fp32",
                "--for",
                "{device}",
                "--precision",
                "fp16",
                "--out",
                "{out}/trt",
            ),
        ),
        Check(
            name="TensorRT builds the engine and measures it",
            simulated="a program that prints what trtexec does, and a stand-in for the module tensorrt",
            words=("bench", "{out}/trt", *RUNS, *_ON),
            expect=(measured("tensorrt"), has_conditions("power_mode", "gpu_clock", "temperature_c")),
            needs="an artifact for TensorRT is written",
        ),
        Check(
            name="the INA sensors give its energy",
            simulated="files of sysfs",
            words=("bench", "{out}/trt", *RUNS, *_ON),
            expect=(has_energy,),
            needs="an artifact for TensorRT is written",
        ),
        Check(
            name="the artifact is deployed and verified",
            simulated="a stand-in for the module tensorrt",
            words=("deploy", "{out}/trt", "{host}"),
            expect=(passed,),
            needs="an artifact for TensorRT is written",
        ),
        Check(
            name="the row of the table",
            simulated="the same stand-ins",
            words=("table", "--setup", "tensorrt-fp16", *_ON),
            expect=(table_row("tensorrt-fp16"),),
        ),
    ),
)
_PI = Kind(
    title="Raspberry Pi",
    on_board=True,
    checks=(
        Check(name="the board is recognized", simulated="an emulated board", words=("devices", *_ON)),
        Check(name="what is wrong with it", simulated="an emulated board", words=("doctor", *_ON)),
        Check(
            name="an int8 artifact is deployed and verified",
            simulated="an emulated board: real outputs, no times",
            words=("deploy", "{artifacts}/tflite-int8", "{host}"),
            expect=(passed,),
        ),
        Check(
            name="LiteRT's latency, with clock, temperature and throttling",
            simulated="files of sysfs; times mean nothing on an emulator",
            words=("bench", "{artifacts}/tflite-int8", *RUNS, "--threads", "1", "4", *_ON),
            expect=(measured("litert"), has_conditions("governor", "mhz", "temperature_c", "throttling")),
        ),
        Check(
            name="the rows of the table",
            simulated="an emulated board: the outputs alone",
            words=("table", "--setup", "tflite-int8", "--setup", "tflite-2019", *_ON),
            expect=(table_row("tflite-int8"), table_row("tflite-2019-")),
        ),
        Check(
            name="a picture from its camera",
            simulated="programs that return an image",
            words=("run", "{artifacts}/tflite-int8", "--camera", "0", "--frames", "2", *_ON),
        ),
    ),
)
_NCS2 = Kind(
    title="Movidius Neural Compute Stick 2",
    on_board=False,
    checks=(
        Check(
            name="the stick is found",
            simulated="files of sysfs",
            words=("devices", "{on}"),
            expect=(found("ncs2", "ncs1"),),
        ),
        Check(
            name="the plugin of OpenVINO 2022 runs the model",
            simulated="the real plugin of 2021.4.2 without a stick",
            words=("bench", "{artifacts}/openvino-fp16", "--device", "myriad", *RUNS, "{on}"),
            expect=(measured("openvino", device="myriad"),),
        ),
    ),
)
_CUDA = Kind(
    title="NVIDIA GPU",
    on_board=False,
    checks=(
        Check(name="the GPU is found", simulated="output of nvidia-smi", words=("devices",)),
        Check(
            name="ONNX Runtime with CUDA",
            simulated="error paths alone",
            words=("bench", "{artifacts}/onnx-fp32", "--device", "cuda", *RUNS),
            expect=(measured("onnxruntime", device="cuda"),),
        ),
        Check(
            name="ONNX Runtime with TensorRT",
            simulated="error paths alone",
            words=("bench", "{artifacts}/onnx-fp32", "--device", "tensorrt", *RUNS),
            expect=(measured("onnxruntime", device="tensorrt"),),
        ),
        Check(
            name="PyTorch",
            simulated="error paths alone",
            words=("bench", "{artifacts}/pt2-fp32", "--device", "cuda", *RUNS),
            expect=(measured("torch", device="cuda"),),
        ),
        Check(
            name="an artifact for TensorRT is written",
            simulated="nothing",
            words=("convert", "{artifacts}/onnx-fp32", "--to", "tensorrt", "--precision", "fp16", "--out", "{out}/trt"),
        ),
        Check(
            name="TensorRT builds the engine and measures it",
            simulated="a stand-in for the module tensorrt",
            words=("bench", "{out}/trt", *RUNS),
            expect=(measured("tensorrt"),),
            needs="an artifact for TensorRT is written",
        ),
        Check(
            name="its outputs are right",
            simulated="a stand-in for the module tensorrt",
            words=("verify", "{out}/trt"),
            expect=(passed,),
            needs="an artifact for TensorRT is written",
        ),
        Check(
            name="the rows of the table",
            simulated="nothing",
            words=("table", "--setup", "torch-cuda", "--setup", "onnxruntime-cuda", "--setup", "onnxruntime-tensorrt"),
            expect=(table_row("torch-cuda"), table_row("onnxruntime-cuda"), table_row("onnxruntime-tensorrt")),
        ),
        Check(
            name="a llama.cpp that was built with CUDA runs on the CPU, which is what edge asks it for",
            simulated="a build without CUDA",
            words=("bench", "{artifacts}/gguf-fp16", "--prompt-tokens", "16", "--gen-tokens", "16"),
            expect=(measured("llama_cpp", device="cpu"),),
        ),
    ),
)
_PHONE = Kind(
    title="Android phone with Termux",
    on_board=True,
    notes=("On the phone, in Termux: pkg install openssh python python-numpy python-onnxruntime; passwd; sshd",),
    checks=(
        Check(name="the phone is recognized", simulated="a folder with Termux' layout", words=("devices", *_ON)),
        Check(name="what is wrong with it", simulated="a folder with Termux' layout", words=("doctor", *_ON)),
        Check(
            name="Termux' ONNX Runtime verifies an artifact",
            simulated="a folder with Termux' layout, and this machine's ONNX Runtime",
            words=("deploy", "{artifacts}/onnx-fp32", "{host}"),
            expect=(passed,),
        ),
        Check(
            name="its latency on several numbers of threads",
            simulated="the same",
            words=("bench", "{artifacts}/onnx-fp32", *RUNS, "--threads", "1", "2", "4", *_ON),
            expect=(measured("onnxruntime"),),
        ),
    ),
)
KINDS: Mapping[str, Kind] = {
    "coral": _CORAL,
    "jetson": _JETSON,
    "pi": _PI,
    "ncs2": _NCS2,
    "cuda": _CUDA,
    "phone": _PHONE,
}
