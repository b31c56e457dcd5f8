"""Convert and run with the last OpenVINO with a MYRIAD plugin; runs inside its environment (see runner.py)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

import libusb_package
import ngraph
import numpy as np
from openvino.inference_engine import IECore


class ConvertJob(TypedDict):
    """See `convert`."""

    job: Literal["convert"]
    model: str
    out: str


class ConvertAnswer(TypedDict):
    """See `convert`."""

    layers: int
    refused: list[list[str]]


class RunJob(TypedDict):
    """See `run_samples`."""

    job: Literal["run"]
    model: str
    inputs: str
    outputs: str
    names: list[str]


class RunAnswer(TypedDict):
    """See `run_samples`."""

    stick: str | None


def run(job: ConvertJob | RunJob) -> ConvertAnswer | RunAnswer:
    """Run job["job"]: "convert" or "run"."""
    return convert(job) if job["job"] == "convert" else run_samples(job)


def convert(job: ConvertJob) -> ConvertAnswer:
    """Write job["out"] (.xml, with the weights in a .bin), IR version 10 in fp16, from the ONNX file job["model"].

    Its inputs have fixed shapes. Returns {"layers": their number, "refused": [[type, name], …]}, the latter for layers
    that the MYRIAD plugin does not support.
    """
    path = Path(job["out"])
    command = [sys.executable, "-m", "mo", "--framework", "onnx", "--input_model", job["model"], "--data_type", "FP16"]
    command += ["--output_dir", str(path.parent), "--model_name", path.stem, "--silent"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError(_first_error(done.stdout.decode("utf-8", "replace")))
    path.with_suffix(".mapping").unlink()
    core = _core_with_myriad()
    network = _read(core, path)
    supported = core.query_network(network, "MYRIAD")
    layers = ngraph.function_from_cnn(_read(core, path)).get_ordered_ops()
    refused = [[layer.get_type_name(), layer.get_friendly_name()] for layer in layers]
    return {"layers": len(layers), "refused": [one for one in refused if one[1] not in supported]}


def run_samples(job: RunJob) -> RunAnswer:
    """Run every sample of job["inputs"] (.npz, [n, *shape] by input name) on the CPU, and write job["outputs"] (.npz).

    "names": the outputs to write. Returns {"stick": null if the network was loaded onto a stick, else the error of the
    MYRIAD plugin}.
    """
    core = _core_with_myriad()
    network = _read(core, Path(job["model"]))
    # By default this release computes in bfloat16 if the CPU supports it: 8 bits of precision, fp16 has 11.
    compiled = core.load_network(network, "CPU", {"ENFORCE_BF16": "NO"})
    samples = np.load(job["inputs"])
    # The mapping lacks the names of scalar inputs.
    inputs = {
        name: name if name in network.input_info else network.get_ov_name_for_tensor(name) for name in samples.files
    }
    outputs = {name: network.get_ov_name_for_tensor(name) for name in job["names"]}
    rows: dict[str, list[Any]] = {name: [] for name in outputs}
    for index in range(len(samples[samples.files[0]])):
        results = compiled.infer({inner: samples[name][index] for name, inner in inputs.items()})
        for name, inner in outputs.items():
            rows[name].append(results[inner].copy())
    stacked: Any = {name: np.stack(row) for name, row in rows.items()}
    np.savez(job["outputs"], **stacked)
    return {"stick": _load_onto_stick(core, network)}


def _core_with_myriad() -> Any:
    # The plugin needs libusb, which few systems have; the loader uses a library of that name that is already loaded.
    ctypes.CDLL(str(libusb_package.get_library_path()), ctypes.RTLD_GLOBAL)
    return IECore()


def _read(core: Any, path: Path) -> Any:
    return core.read_network(str(path), str(path.with_suffix(".bin")))


def _load_onto_stick(core: Any, network: Any) -> str | None:
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # without a stick it prints the same line a million times
    try:
        core.load_network(network, "MYRIAD")
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    finally:
        os.dup2(stderr, 2)
    return None


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if line.startswith("[ ERROR ]")]
    return (errors or lines or ["mo printed nothing"])[0].replace("[ ERROR ]", "mo:").strip()
