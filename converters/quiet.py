"""Converters talk: C++ libraries write to file descriptors 1 and 2, Python ones print, warn and log.

While a block runs under `quiet`, all of that is kept off the terminal and its errors become ours.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TextIO

from runtimes.errors import EdgeError, EngineError, InputError

# TensorFlow reads these when it is imported: errors only, and sums in one order on every run.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_LONGEST = 300
_NOISE = ("traceback", "warning", "error while", "in user code", 'file "')


@contextmanager
def loading(model: object, kind: str) -> Iterator[None]:
    """A library reads the file `model` inside the block: what it raises becomes an InputError."""
    try:
        with quiet():
            yield
    except (EdgeError, MemoryError):
        raise
    except Exception as error:
        hint = "check that the file is complete, and that the library which wrote it is not newer than the one here"
        raise InputError(f"{model} cannot be read as {kind}: {useful_line(error)}", hint) from error


@contextmanager
def converting(model: object, tool: str) -> Iterator[None]:
    """A library converts `model` inside the block: what it raises becomes an EngineError."""
    try:
        with quiet():
            yield
    except (EdgeError, MemoryError):
        raise
    except Exception as error:
        hint = "the model may use an operation that the target lacks; --debug shows everything that was said"
        raise EngineError(f"{tool} failed on {model}: {useful_line(error)}", hint) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block nothing reaches standard output or error, from C++ or Python, and warnings are ignored."""
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
    """Never closed: log handlers that a library makes inside `quiet` hold on to it."""
    return Path(os.devnull).open("w")


def no_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting each use to Google Analytics, which they do unless told not to.

    To be called before either is imported; they then take the part that does nothing in its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: Python's "cannot be imported"


def useful_line(error: BaseException) -> str:
    """The first line of a native error's text that says something, shortened; its class name when it has none."""
    return useful_text(str(error)) or type(error).__name__


def useful_text(text: str) -> str:
    """The first line that says something, shortened; empty when there is none."""
    lines = [line.strip() for line in text.splitlines()]
    useful = [line for line in lines if line and not line.lower().startswith(_NOISE)]
    return useful[0][:_LONGEST] if useful else ""
