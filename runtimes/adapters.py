"""What every adapter needs: importing its engine, reading its settings, naming shapes, and the seam for its errors."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np

from runtimes.errors import EdgeError, EngineError, InputError, UsageError, first_line
from runtimes.manifest import Quantization, TensorSpec
from runtimes.registry import install_hint, is_installed, missing
from runtimes.session import Engine, RunOptions, check_settings

Summary = Callable[[BaseException], str]


def import_engine(adapter: Engine, module: str) -> Any:
    """The engine's module; EngineMissing where it is not installed, EngineError where it does not load."""
    if not is_installed(adapter):
        raise missing(adapter)
    try:
        return import_module(module)
    except Exception as error:
        message = f"the engine '{adapter.id}' is installed but does not load: {first_line(error)}"
        raise EngineError(message, f"install it again: {install_hint(adapter.id)}") from error


def check_options(adapter: Engine, options: RunOptions, devices: Iterable[str] = ("cpu",)) -> None:
    """UsageError for a setting or a device that the engine does not have."""
    check_settings(options.settings, adapter.settings, adapter.id)
    if options.device not in devices:
        raise UsageError(f"{adapter.id} has no device '{options.device}'", f"its devices: {', '.join(devices)}")


def choice(adapter: Engine, options: RunOptions, name: str, allowed: Sequence[str]) -> str:
    """The value of a setting, the first of `allowed` where it is not set; UsageError for any other word."""
    value = options.settings.get(name, allowed[0])
    if value not in allowed:
        raise UsageError(f"{adapter.id}: {name} is '{value}'", f"choose one of: {', '.join(allowed)}")
    return value


@contextmanager
def opening(
    engine: str, path: Path, summary: Summary = first_line, faults: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """The seam for errors while `engine` loads `path`.

    What an engine raises then is about the file, InputError, but for the classes in `faults`: those are the
    engine's own, EngineError.
    """
    own: tuple[type[BaseException], ...] = (MemoryError, *faults)
    try:
        yield
    except EdgeError:
        raise
    except own as error:
        message = f"{engine} cannot load {path}: {_told(summary, error)}"
        raise EngineError(message, "try another engine or device") from error
    except Exception as error:
        hint = "check that the file is whole, and that it was made for this engine"
        raise InputError(f"{engine} cannot open {path}: {_told(summary, error)}", hint) from error


@contextmanager
def running(engine: str, summary: Summary = first_line) -> Iterator[None]:
    """The seam for errors during an inference: whatever the engine raises becomes EngineError."""
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:
        hint = "check that the values fit the model; another engine may run it"
        raise EngineError(f"{engine} failed to run the model: {_told(summary, error)}", hint) from error


def _told(summary: Summary, error: BaseException) -> str:
    """One line for a terminal: engines quote names from the file, and some of them colour their text."""
    return "".join(c for c in re.sub("\x1b\\[[0-9;]*m", "", summary(error)) if c.isprintable())


def tensor_spec(name: str, dtype: Any, sizes: Sequence[Any], quantization: Quantization | None = None) -> TensorSpec:
    """A spec from an engine's own words; a size that is neither a count nor a name is a free dimension.

    Free dimensions without a name are called `batch` (the first) or `dim<axis>`. InputError for an element type
    that numpy has not: text, sequences, bfloat16.
    """
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = np.dtype(object)
    if known.kind not in "biuf":
        raise InputError(f"'{name}' holds {dtype}, not numbers that numpy knows", "use a model with numeric tensors")
    return TensorSpec(name, known.name, tuple(_size(size, axis) for axis, size in enumerate(sizes)), quantization)


def unique(names: Sequence[str]) -> list[str]:
    """The engine's own names; one that is empty or was used before gets its position behind a colon."""
    given: list[str] = []
    for position, name in enumerate(names):
        given.append(name if name and name not in given else f"{name}:{position}")
    return given


def _size(size: Any, axis: int) -> int | str:
    if isinstance(size, str) and size:
        return size
    if isinstance(size, (int, np.integer)) and size >= 0:
        return int(size)
    return "batch" if axis == 0 else f"dim{axis}"
