"""Helpers for engine adapters: import the engine, read settings, describe tensors, map native errors."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np

from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.errors import EdgeError, EngineError, InputError, UsageError, first_line
from runtimes.model_files.onnx import is_axis_name
from runtimes.registry import install_hint, is_installed, missing
from runtimes.session import Engine, RunOptions, check_settings

Summary = Callable[[BaseException], str]

# What engines write about models that are intact but use something they lack: ONNX Runtime ("is not a registered
# function/op", "under development"), TFLite ("Didn't find op for builtin opcode", "unresolved custom op"), OpenVINO
# ("not supported", "Cannot create X layer"), Keras ("Unknown layer"), PyTorch ("not implemented").
_UNSUPPORTED = re.compile(
    r"not (currently |yet )?(supported|implemented|a registered)|unsupported|under development|unregistered"
    r"|didn't find op|custom op|unknown (layer|operator|op)|could not locate (class|function)|cannot create \w+ layer",
    re.IGNORECASE,
)


def import_engine(adapter: Engine, module: str) -> Any:
    """Import the engine's module. Raises EngineMissingError if it is not installed, EngineError if importing fails."""
    if not is_installed(adapter):
        raise missing(adapter)
    try:
        return import_module(module)
    except Exception as error:
        message = f"the engine '{adapter.id}' is installed but cannot be imported: {first_line(error)}"
        raise EngineError(message, f"install it again: {install_hint(adapter.id)}") from error


def check_options(adapter: Engine, options: RunOptions, devices: Iterable[str] = ("cpu",)) -> None:
    """Raise UsageError for a setting or a device that the engine does not have."""
    check_settings(options.settings, adapter.settings, adapter.id)
    if options.device not in devices:
        raise UsageError(f"{adapter.id} has no device '{options.device}'", f"its devices: {', '.join(devices)}")


def choice(adapter: Engine, options: RunOptions, name: str, allowed: Sequence[str]) -> str:
    """Return the value of a setting; the default is the first of `allowed`. Raises UsageError for any other value."""
    value = options.settings.get(name, allowed[0])
    if value not in allowed:
        raise UsageError(f"{adapter.id}: {name} is '{value}'", f"choose one of: {', '.join(allowed)}")
    return value


@contextmanager
def opening(
    engine: str, path: Path, summary: Summary = first_line, faults: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Map native errors while `engine` loads `path`.

    Errors are attributed to the file (InputError), except for the classes in `faults`, which are the engine's own
    (EngineError). The hint distinguishes a model that the engine does not support from a file that may be damaged.
    """
    own: tuple[type[BaseException], ...] = (MemoryError, *faults)
    try:
        yield
    except EdgeError:
        raise
    except own as error:
        message = f"{engine} cannot load {path}: {_one_line(summary, error)}"
        raise EngineError(message, "try another engine or device") from error
    except Exception as error:
        summarized = _one_line(summary, error)
        if _UNSUPPORTED.search(summarized) or isinstance(error, NotImplementedError):
            hint = f"{engine} does not support something in this model: try another engine or a newer version of it"
        else:
            hint = (
                "the engine may not support this model, or the file may be damaged; `edge inspect` reads it without an "
                "engine"
            )
        raise InputError(f"{engine} cannot open {path}: {summarized}", hint) from error


@contextmanager
def running(engine: str, summary: Summary = first_line) -> Iterator[None]:
    """Map native errors during an inference to EngineError."""
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:
        hint = "check that the values fit the model; another engine may run it"
        raise EngineError(f"{engine} failed to run the model: {_one_line(summary, error)}", hint) from error


def _one_line(summary: Summary, error: BaseException) -> str:
    """Make a message safe for one terminal line: engines quote names from the file, and some print colors."""
    return "".join(c for c in re.sub("\x1b\\[[0-9;]*m", "", summary(error)) if c.isprintable())


def tensor_spec(name: str, dtype: Any, sizes: Sequence[Any], quantization: Quantization | None = None) -> TensorSpec:
    """Build a spec from an engine's description. A size that is neither an integer ≥ 0 nor a name is a free dimension.

    Unnamed free dimensions are called `batch` (the first) or `dim<axis>`. Raises InputError for an element type
    that numpy does not have: text, sequences, bfloat16.
    """
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = np.dtype(object)
    if known.kind not in "biuf":
        raise InputError(
            f"'{name}' has the type {dtype}, which edge does not support",
            "use a model whose inputs and outputs are numeric tensors",
        )
    return TensorSpec(
        name=name,
        dtype=known.name,
        shape=tuple(_size(size, axis) for axis, size in enumerate(sizes)),
        quantization=quantization,
    )


def unique(names: Sequence[str]) -> list[str]:
    """Make the engine's names unique: an empty or repeated one gets its position appended after a colon."""
    distinct: list[str] = []
    for position, name in enumerate(names):
        distinct.append(name if name and name not in distinct else f"{name}:{position}")
    return distinct


def _size(size: Any, axis: int) -> int | str:
    if isinstance(size, str) and is_axis_name(size):
        return size
    if isinstance(size, (int, np.integer)) and size >= 0:
        return int(size)
    return "batch" if axis == 0 else f"dim{axis}"
