"""Engine id → adapter. The ids are the files in `runtimes/engines/`; each is imported on first use."""

from __future__ import annotations

import difflib
import importlib.util
import pkgutil
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, cast

import runtimes.engines
from runtimes.errors import EngineError, EngineMissing, UsageError
from runtimes.session import Engine, Runtime

if TYPE_CHECKING:
    from runtimes.text import TextRuntime

# Where several engines open a format, the one that is tried first.
PREFERRED = {
    "onnx": "onnxruntime",
    "tflite": "litert",
    "edgetpu": "edgetpu",
    "openvino": "openvino",
    "keras": "keras",
    "savedmodel": "tensorflow",
    "pt2": "torch",
    "tensorrt": "tensorrt",
    "null": "null",
    "gguf": "llama_cpp",
}

_FOR_TEXT = "language models are run with edge chat and edge serve, and measured with edge bench"

# Engines that a board's own system brings, in the one build that fits its GPU.
_OWN_PACKAGES = {"tensorrt": "on a Jetson: sudo apt-get install python3-libnvinfer"}


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine's library is installed, told without importing it.

    `lacks` names what else it needs and this machine has not: an adapter may have a method `lacks` that tells.
    """

    id: str
    requires: str
    formats: tuple[str, ...]
    installed: bool
    version: str | None
    lacks: str = ""


def runtime_ids() -> list[str]:
    """All engine ids, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(runtimes.engines.__path__))


@lru_cache(maxsize=None)
def engine(runtime_id: str) -> Engine:
    """The adapter of one engine; UsageError with the nearest names for an unknown id."""
    known = runtime_ids()
    if runtime_id not in known:
        near = difflib.get_close_matches(runtime_id, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"engines: {', '.join(known)}"
        raise UsageError(f"there is no engine '{runtime_id}'", hint)
    module = import_module(f"runtimes.engines.{runtime_id}")
    return cast(Engine, module.Adapter())


def runtime(runtime_id: str) -> Runtime:
    """The adapter of an engine that runs tensors; UsageError as `engine`, and for an engine of language models."""
    found = engine(runtime_id)
    if not hasattr(found, "open"):
        raise UsageError(f"the engine '{runtime_id}' is for language models", _FOR_TEXT)
    return cast(Runtime, found)


def for_format(model_format: str, wanted: str | None = None) -> Runtime:
    """The engine to open a format with: `wanted`, else the preferred one, else any other that is installed.

    UsageError when `wanted` does not open the format, and for language models; EngineMissing, naming the extra, when
    none is installed.
    """
    return runtime(_for_format(model_format, wanted).id)


def text_runtime(wanted: str | None = None) -> TextRuntime:
    """The engine for language models in GGUF, chosen and refused as by `for_format`."""
    return cast("TextRuntime", _for_format("gguf", wanted))


def _for_format(model_format: str, wanted: str | None) -> Engine:
    if wanted is not None:
        return _wanted(model_format, engine(wanted))
    first = PREFERRED.get(model_format)
    able = [i for i in runtime_ids() if model_format in engine(i).formats]
    able.sort(key=lambda i: i != first)
    if not able:
        raise UsageError(
            f"no engine here opens the format '{model_format}'", f"formats: {', '.join(sorted(PREFERRED))}"
        )
    ready = [i for i in able if is_installed(engine(i))]
    if not ready:
        raise missing(engine(able[0]))
    return engine(ready[0])


def status(runtime_id: str) -> EngineStatus:
    """Whether an engine is installed and which version, without importing the engine."""
    adapter = engine(runtime_id)
    installed = is_installed(adapter)
    try:
        version = adapter.version() if installed else None
    except EngineError:
        version = None
    lacks: str = adapter.lacks() if installed and hasattr(adapter, "lacks") else ""
    return EngineStatus(adapter.id, adapter.requires, adapter.formats, installed, version, lacks)


def is_installed(adapter: Engine) -> bool:
    """Whether the adapter's library can be found, without importing it."""
    if not adapter.requires:
        return True
    return any(is_found(name) for name in adapter.requires.split("|"))


def is_found(module: str) -> bool:
    """Whether a module, dotted or not, can be found; its parents are imported, it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is absent, or broken
        return False


def missing(adapter: Engine) -> EngineMissing:
    """The error to raise when an adapter's library is not installed; names the extra that installs it."""
    return EngineMissing(f"the engine '{adapter.id}' is not installed", install_hint(adapter.id))


def install_hint(extra: str) -> str:
    """The command that installs one of the project's extras."""
    command = f"pip install 'edgeproof[{extra}]'"
    return f"{_OWN_PACKAGES[extra]}; elsewhere: {command}" if extra in _OWN_PACKAGES else command


def distribution_version(*names: str) -> str:
    """The version of the first of these distributions that is installed; "unknown" where none has metadata."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _wanted(model_format: str, adapter: Engine) -> Engine:
    if model_format not in adapter.formats:
        hint = f"it opens: {', '.join(adapter.formats)}"
        raise UsageError(f"the engine '{adapter.id}' does not open the format '{model_format}'", hint)
    if not is_installed(adapter):
        raise missing(adapter)
    return adapter
