"""Call noisy libraries: suppress their output, and map their errors.

C++ libraries write to file descriptors 1 and 2; Python ones print, warn and log.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TextIO

from runtimes.errors import EdgeError, EngineError, InputError

# TensorFlow reads these on import: log errors only, and use a deterministic order of summation.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_LONGEST = 300
_NOISE = ("traceback", "warning", "error while", "in user code", 'file "')
# OpenVINO's messages begin with the place in its own code.
_PLACES = ("check '", "frontend api failed", "exception from src")
# The end of the messages of OpenVINO's frontends: operators that they cannot convert, and operators that they lack.
_UNCONVERTED = re.compile(r"Conversion is failed for[: ]+([^\n]+?)\.?(?:\n|$)")
_LACKING = re.compile(r"(?:No conversion rule found for operations|No translator found for)[: ]+([^\n]+?)\.?(?:\n|$)")
# The end of the messages of TensorFlow's converter, in the middle of a dump of the graph.
_NOT_IN_TFLITE = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_TYPED = {  # of TensorFlow's details: operators on floats that TFLite does not compute with
    kind: re.compile(rf"^\s*tf\.(\w+)\([^)]*x{letters}\b", re.MULTILINE)
    for kind, letters in (("float64", "f64"), ("float16", "f16"), ("bfloat16", "bf16"))
}
_NOT_IN_ONNX2TF = re.compile(r"No module named 'onnx2tf\.ops\.(\w+)'")


def loading(model: object, kind: str) -> AbstractContextManager[None]:
    """Map errors to InputError while a library reads the file `model`."""
    hint = "the file may be damaged, or use something that the installed version of the library does not support"
    return _map_errors(model, InputError, f"{model} cannot be read as {kind}", hint)


def converting(model: object, tool: str) -> AbstractContextManager[None]:
    """Map errors to EngineError while a library converts `model`."""
    hint = "the model may use an operation that the converter does not support; --debug shows its full output"
    return _map_errors(model, EngineError, f"{tool} failed on {model}", hint)


@contextmanager
def _map_errors(model: object, kind: type[EdgeError], what: str, hint: str) -> Iterator[None]:
    """Suppress output, and convert a library's errors to `kind`, or to EngineError where OpenVINO lacks an operator."""
    try:
        with suppress_output():
            yield
    except (EdgeError, MemoryError):
        raise
    except Exception as error:
        if lacking := _LACKING.search(str(error)):
            what = f"OpenVINO does not have these operators of {model}: {lacking[1].strip()}"
            raise EngineError(what, "choose another target, such as --to onnx") from error
        if unconverted := _UNCONVERTED.search(str(error)):
            what = f"OpenVINO does not convert these operators of {model}: {unconverted[1].strip()}"
            raise EngineError(
                what, "if the model has free sizes, fix them with --shape, or choose another target"
            ) from error
        raise kind(f"{what}: {first_useful_line(error)}", hint) from error


@contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress standard output and error from C++ and Python, and warnings."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    void = _void()
    try:
        os.dup2(void.fileno(), 1)
        os.dup2(void.fileno(), 2)
        with redirect_stdout(void), redirect_stderr(void), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


@cache
def _void() -> TextIO:
    """Return the null stream. It is never closed, because log handlers created meanwhile keep a reference."""
    return Path(os.devnull).open("w")


def no_telemetry() -> None:
    """Disable the telemetry of OpenVINO and NNCF, which report each use to Google Analytics by default.

    Call it before either is imported; they then fall back to a stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None makes the import fail


def first_useful_line(error: BaseException) -> str:
    """Return the first informative line of an error's text, shortened; its class name if there is none."""
    return useful_text(str(error)) or type(error).__name__


def useful_text(text: str) -> str:
    """Return the first informative line, shortened; empty if there is none."""
    lacking = dict.fromkeys(_NOT_IN_TFLITE.findall(text))
    if lacking:
        kinds = {name: kind for kind, typed in _TYPED.items() for name in typed.findall(text)}
        named = [f"{name} in {kinds[name]}" if name in kinds else name for name in lacking]
        return f"TFLite has no operator for {', '.join(named)}"
    if unknown := _NOT_IN_ONNX2TF.search(text):
        return f"it does not support the operator {unknown[1]}"
    lines = [line.strip() for line in text.splitlines()]
    useful = [line for line in lines if re.search(r"\w", line) and not line.lower().startswith(_NOISE)]
    informative = [line for line in useful if not line.lower().startswith(_PLACES)] or useful
    return informative[0][:_LONGEST] if informative else ""
