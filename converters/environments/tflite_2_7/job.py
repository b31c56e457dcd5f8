"""Run a TFLite model with tflite-runtime 2.7; runs inside its environment (see runner.py)."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from tflite_runtime.interpreter import Interpreter


class Job(TypedDict):
    """See `run`."""

    model: str
    inputs: str
    outputs: str


class Output(TypedDict):
    """The quantization of an output."""

    name: str
    scale: float
    zero_point: int


class Answer(TypedDict):
    """See `run`."""

    outputs: list[Output]


def run(job: Job) -> Answer:
    """Run every sample of job["inputs"] (.npz, [n, *shape] in the model's order), and write job["outputs"] likewise.

    Returns {"outputs": [{"name", "scale", "zero_point"}, …]}, with scale 0 for unquantized outputs. Raises ValueError
    if this runtime cannot read the file.
    """
    interpreter = _open(job["model"])
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    samples = np.load(job["inputs"])
    rows: dict[str, list[Any]] = {f"{place:04d}": [] for place, _ in enumerate(outputs)}
    for index in range(len(samples[samples.files[0]])):
        for detail, name in zip(inputs, samples.files):
            interpreter.set_tensor(detail["index"], samples[name][index])
        interpreter.invoke()
        for row, detail in zip(rows.values(), outputs):
            row.append(interpreter.get_tensor(detail["index"]))
    stacked: Any = {name: np.stack(row) for name, row in rows.items()}
    np.savez(job["outputs"], **stacked)
    return {"outputs": [_describe(detail) for detail in outputs]}


def _open(model: str) -> Any:
    try:
        interpreter = Interpreter(model, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"this runtime cannot load the model: {str(error).strip()}") from error
    return interpreter


def _describe(detail: Any) -> Output:
    scale, zero_point = detail["quantization"]
    return {"name": detail["name"], "scale": float(scale), "zero_point": int(zero_point)}
