"""Run a TFLite model with tflite-runtime 2.7; runs inside its environment (see child.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from tflite_runtime.interpreter import Interpreter


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run every sample of job["inputs"] (.npz, [n, *shape] in the model's order); writes job["outputs"] the same way.

    Answers {"outputs": [{"name", "scale", "zero_point"}, …]}, scale 0 for plain numbers. A file that this runtime
    cannot read is a ValueError.
    """
    interpreter = _opened(job["model"])
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    given = np.load(job["inputs"])
    rows: dict[str, list[Any]] = {f"{place:04d}": [] for place, _ in enumerate(outputs)}
    for index in range(len(given[given.files[0]])):
        for detail, name in zip(inputs, given.files):
            interpreter.set_tensor(detail["index"], given[name][index])
        interpreter.invoke()
        for row, detail in zip(rows.values(), outputs):
            row.append(interpreter.get_tensor(detail["index"]))
    stacked: dict[str, Any] = {name: np.stack(row) for name, row in rows.items()}
    np.savez(job["outputs"], **stacked)
    return {"outputs": [_described(detail) for detail in outputs]}


def _opened(model: str) -> Any:
    try:
        interpreter = Interpreter(model, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"this runtime does not read the model: {str(error).strip()}") from error
    return interpreter


def _described(detail: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = detail["quantization"]
    return {"name": detail["name"], "scale": float(scale), "zero_point": int(zero_point)}
