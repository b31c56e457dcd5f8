"""Does a model answer an ONNX node test's inputs as the test expects? Opened by its own engine, without edge's code.

The data are the test's own, and the expected outputs are those that ONNX's authors computed with numpy.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tests.breadth.real_judge import Engine, Port, model_file, open_engine

_ONNX2TF = """
import json, os, signal, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import numpy
import onnx2tf.onnx2tf as onnx2tf
# It would download pictures to compare its layers with.
onnx2tf.download_test_image_data = lambda: numpy.random.default_rng(0).random((20, 128, 128, 3), "float32")
for line in sys.stdin:
    model, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        error = ""
        try:
            onnx2tf.convert(input_onnx_file_path=model, output_folder_path=folder, non_verbose=True)
        except BaseException as failure:  # it calls sys.exit
            error = " ".join(str(failure).split()) or type(failure).__name__
        print(json.dumps(error), file=answers, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(json.dumps("it crashed, or took more than 120 s"), file=answers, flush=True)
"""
_HALFWAY = 1e-3  # of a step: the quotient is rounded too
# Of each value, and of the largest value of the output: how far a result may be off.
_SHARES = {"fp32": (1e-3, 1e-4), "fp16": (1e-2, 1e-2)}


def artifact_answers(case: Path, artifact: Path, precision: str) -> tuple[bool, str]:
    """Whether an artifact reproduces the data of the test in the folder `case`."""
    return _judge(case, model_file(artifact), precision)


def engine_answers(case: Path, engine: str) -> tuple[bool, str]:
    """Whether `onnxruntime` or `openvino`, given the test's model directly, reproduces its data."""
    try:
        return _judge(case, case / "model.onnx", "fp32", engine)
    except Exception as error:
        return False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Onnx2tf:
    """A process that has imported onnx2tf, which takes seconds, and converts each model in a fork of itself."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), "-c", _ONNX2TF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answers(self, case: Path) -> tuple[bool, str]:
        """Whether the file that onnx2tf, given the model directly, writes reproduces the test's data in LiteRT."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        folder = case.with_name("onnx2tf")
        print(json.dumps([str(case / "model.onnx"), str(folder)]), file=stdin, flush=True)
        error = json.loads(stdout.readline())
        if error:
            return False, f"onnx2tf: {error[:300]}"
        try:
            return _judge(case, next(folder.glob("*_float32.tflite")), "fp32")
        except Exception as error:
            return False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def same_answers(case: Path, artifact: Path, precision: str) -> tuple[bool, str]:
    """Whether an artifact answers the test's inputs as ONNX Runtime answers them, whatever the test expects."""
    inputs = _arrays(case / "inputs.npz")
    source, result = open_engine(case / "model.onnx"), open_engine(model_file(artifact))
    expected = {str(place): np.asarray(values) for place, values in enumerate(run(source, inputs))}
    return verdict(expected, run(result, inputs), precision)


def _judge(case: Path, model: Path, precision: str, engine: str = "") -> tuple[bool, str]:
    opened = open_engine(model, engine)
    inputs, expected = _arrays(case / "inputs.npz"), _arrays(case / "outputs.npz")
    return verdict(expected, run(opened, inputs), precision, _halfway(inputs, expected))


def _halfway(inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return where a test quantizes values that lie halfway between two steps: either step is right there."""
    values, scale = inputs.get("x"), {**inputs, **expected}.get("y_scale")
    if values is None or scale is None or values.dtype.kind != "f" or scale.size != 1:
        return {}
    return {"y": np.abs(values / scale % 1 - 0.5) < _HALFWAY}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def run(engine: Engine, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Give the engine the inputs, by name where it knows the names, else in order; returns its outputs in order.

    An engine may drop an input that decides nothing.
    """
    known = {port.name for port in engine.inputs} <= set(inputs)
    if not known and len(engine.inputs) != len(inputs):
        raise ValueError(f"the test has {len(inputs)} inputs, the model takes {len(engine.inputs)}")
    values = [inputs[port.name] for port in engine.inputs] if known else list(inputs.values())
    return engine.run([_turned(value, port) for value, port in zip(values, engine.inputs, strict=True)])


def verdict(
    expected: dict[str, np.ndarray],
    given: list[np.ndarray],
    precision: str,
    halfway: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[bool, str]:
    """Judge all outputs; says which one differs, and how far. Whole numbers may be one off where they are `halfway`."""
    if len(given) != len(expected):
        return False, f"the test has {len(expected)} outputs, the result {len(given)}"
    for (name, wanted), values in zip(expected.items(), given, strict=True):
        if values is None:
            return False, f"'{name}' is missing"
        words = _difference(wanted, np.asarray(values), precision, halfway.get(name, np.False_))
        if words:
            return False, f"'{name}' {words}"
    return True, ""


def _difference(wanted: np.ndarray, values: np.ndarray, precision: str, halfway: np.ndarray | np.bool_) -> str:
    """Describe how an output differs; "" if it does not, in the source's axes or turned."""
    if values.shape != wanted.shape:
        turned = [
            other
            for axes in itertools.permutations(range(values.ndim))
            if (other := values.transpose(axes)).shape == wanted.shape
        ]
        if not turned:
            return f"is {list(values.shape)}, not {list(wanted.shape)}"
        return min((_difference(wanted, one, precision, halfway) for one in turned), key=len)
    if wanted.dtype.kind in "biu":
        apart = np.abs(wanted.astype(np.float64) - values)
        unequal = int(((wanted != values) & ~(halfway & (apart <= 1))).sum())
        return f"differs in {unequal} of {wanted.size} values" if unequal else ""
    real, other = wanted.astype(np.float64), values.astype(np.float64)
    is_finite = np.isfinite(real)
    if not np.array_equal(real[~is_finite], other[~is_finite], equal_nan=True):
        return "differs where the test expects NaN or infinity"
    relative, absolute = _SHARES[precision]
    largest = float(np.abs(real[is_finite]).max(initial=0.0))
    apart = np.abs(other[is_finite] - real[is_finite])
    if (apart <= relative * np.abs(real[is_finite]) + absolute * largest).all():
        return ""
    return f"differs by {np.nan_to_num(apart, nan=np.inf).max():.3g} where its largest value is {largest:.3g}"


def _turned(value: np.ndarray, port: Port) -> np.ndarray:
    """Return the value in the axes and the type that the engine takes; where several orders fit, channels are last."""
    if value.ndim == len(port.shape) and not _fits(value.shape, port.shape):
        channels_last = (0, *range(2, value.ndim), 1)
        for axes in (channels_last, *itertools.permutations(range(value.ndim))):
            if _fits(value.transpose(axes).shape, port.shape):
                value = value.transpose(axes)
                break
    elif value.ndim != len(port.shape) and value.size == abs(int(np.prod(port.shape))):
        value = value.reshape(port.shape)
    return np.asarray(value.astype(port.dtype), order="C")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(b < 0 or a == b for a, b in zip(shape, wanted, strict=True))
