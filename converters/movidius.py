"""ONNX → what a Movidius NCS2 runs: fp16 IR version 10, by the last OpenVINO whose wheels hold the MYRIAD plugin.

It runs in an environment of its own (Python 3.8). Its MYRIAD plugin says layer by layer what it takes, without a
stick; its CPU plugin is the witness of the proof.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from converters.environments import environment
from converters.onnx_shapes import fixed_shapes
from converters.steps import Made, StepOptions
from converters.witness import Testimony
from runtimes.arrays import Arrays, load_arrays
from runtimes.errors import RefusedError, UsageError
from runtimes.worker import save_arrays

RELEASE = "2021.4"
ENVIRONMENT = "openvino_2021_4"
ENGINE = "OpenVINO 2021.4.2"
_NEWEST_OPSET = 13
_TIMEOUT_S = 1800.0
_MOST_NAMED = 3
_HINT = (
    f"its model optimiser reads ONNX up to opset {_NEWEST_OPSET} and may lack an operation: see `edge check --for ncs2`"
)


def convert_for_myriad(model: Path, out: Path, options: StepOptions) -> Made:
    """Write `<model name>.xml` and `.bin` into `out`; RefusedError, naming them, for layers that MYRIAD does not take.

    UsageError for another release, another precision or a free batch, InputError for a broken model, HostError where
    the environment cannot be made.
    """
    if options.release != RELEASE:
        raise UsageError(f"OpenVINO {options.release} is not to be had here", f"the release that is: {RELEASE}")
    if options.precision != "fp16" or options.batch is None:
        raise UsageError("a Movidius stick takes fp16 and a fixed batch only", "leave out --precision")
    shapes = fixed_shapes(model, options.batch, _NEWEST_OPSET)
    path = out / f"{model.stem}.xml"
    job = {"job": "convert", "model": str(model.resolve()), "out": str(path.resolve()), "shapes": shapes}
    answer = environment(ENVIRONMENT).run(job, _TIMEOUT_S, f"{ENGINE} on {model}", _HINT)
    _check_layers(answer["refused"], answer["layers"], model)

    def witness(feeds: Arrays, outputs: Sequence[str]) -> Testimony:
        return _testify(path, feeds, outputs, answer["layers"])

    return Made(path, facts={"layers_on_myriad": answer["layers"]}, witness=witness)


def _check_layers(refused: list[list[str]], layers: int, model: Path) -> None:
    if not refused:
        return
    named = ", ".join(f"{kind} '{name}'" for kind, name in refused[:_MOST_NAMED])
    more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
    what = f"the MYRIAD plugin does not take {len(refused)} of the {layers} layers of {model}: {named}{more}"
    raise RefusedError(what, "`edge check --for ncs2` says what to change")


def _testify(path: Path, feeds: Arrays, outputs: Sequence[str], layers: int) -> Testimony:
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given, answered = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        save_arrays(given, feeds)
        job = {
            "job": "run",
            "model": str(path.resolve()),
            "inputs": str(given),
            "outputs": str(answered),
            "names": list(outputs),
        }
        answer = environment(ENVIRONMENT).run(job, _TIMEOUT_S, f"{ENGINE} on {path}", _HINT)
        arrays = load_arrays(answered)
        stick = answer["stick"]
    said = f"not run on a stick: its MYRIAD plugin said '{stick}'" if stick else "loaded onto the stick that is here"
    note = f"{ENGINE}: all {layers} layers are taken by its MYRIAD plugin, the numbers are its CPU plugin's; {said}"
    return Testimony(f"{ENGINE} (CPU)", {name: arrays[name] for name in outputs}, notes=(note,))
