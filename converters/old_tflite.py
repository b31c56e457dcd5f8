"""What the TFLite runtime of the Edge TPU compiler's age answers: it reads a newer file as the compiler will.

tflite-runtime 2.7 reads one scale of a dense layer that has one for each output: it loads such a file without a word
and answers wrong. LiteRT, which runs the proof, reads them all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.environments import environment
from converters.witness import Testimony, Witness
from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.manifest import Quantization
from runtimes.tensors import dequantize
from runtimes.worker import save_arrays

ENVIRONMENT = "tflite_2_7"
ENGINE = "tflite-runtime 2.7.0"
_TIMEOUT_S = 1800.0
_HINT = (
    "the Edge TPU compiler reads no newer files: convert with int8 inputs and outputs, a fixed batch, no new operators"
)


def old_tflite_answers(model: Path, inputs: Arrays) -> Arrays:
    """The real outputs of a `.tflite` on tflite-runtime 2.7: {output name: float32 [n, *shape]}, in the model's order.

    `inputs` are as fed to the model, in its dtypes, stacked [n, *shape], one for each input in the model's order.
    For the proof of what the Edge TPU compiler is to read, which `old_witness` hands to the pipeline. Makes its
    environment (Python 3.9) when it is not there yet. InputError for a file that this runtime does not read, HostError
    where the environment cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given, answered = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        save_arrays(given, {f"{place:04d}": values for place, values in enumerate(inputs.values())})
        job = {"model": str(model.resolve()), "inputs": str(given), "outputs": str(answered)}
        answer = environment(ENVIRONMENT).run(job, _TIMEOUT_S, f"{ENGINE} on {model}", _HINT)
        arrays = load_arrays(answered)
        return {output["name"]: _real(arrays[f"{place:04d}"], output) for place, output in enumerate(answer["outputs"])}


def old_witness(model: Path) -> Witness:
    """The old runtime as a witness of the pipeline's proof for a `.tflite` that takes what the result takes."""

    def ask(feeds: Arrays, outputs: Sequence[str]) -> Testimony:
        answers = old_tflite_answers(model, feeds)
        return Testimony(ENGINE, dict(zip(outputs, answers.values(), strict=True)))

    return ask


def _real(values: Array, output: dict[str, Any]) -> Array:
    scale, zero_point = output["scale"], output["zero_point"]
    return dequantize(values, Quantization((scale,), (zero_point,), None) if scale else None)
