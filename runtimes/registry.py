"""Find engine adapters by id: the files in `runtimes/engines/`, imported on first use, and extensions."""

from __future__ import annotations

import difflib
import importlib.util
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, cast

import runtimes.engines
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, EngineMissingError, UsageError
from runtimes.extensions import Extensions, load
from runtimes.joined_session import open_like_source
from runtimes.model_files.detect import FORMATS
from runtimes.session import Engine, RunOptions, Session, TensorEngine

if TYPE_CHECKING:
    from runtimes.llm.session import TextEngine

# The engine that is tried first when several open a format.
PREFERRED = {name: one.preferred_engine for name, one in FORMATS.items()}

_FOR_TEXT = "run language models with edge chat or edge serve, and measure them with edge bench"


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine's library is installed, determined without importing it.

    `lacks` names what else is missing on this machine, see `Engine.lacks`.
    """

    id: str
    requires: str
    formats: tuple[str, ...]
    installed: bool
    version: str | None
    lacks: str = ""


def engine_ids() -> list[str]:
    """Return all engine ids, including extensions', sorted."""
    built_in = _built_in_names()
    return sorted((*built_in, *_extensions().found))


@lru_cache(maxsize=None)
def _built_in_names() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(runtimes.engines.__path__))


def _extensions() -> Extensions:
    return load("edge.engines", _built_in_names(), _check_engine)


def _check_engine(found: object) -> None:
    if not isinstance(found, Engine):
        raise TypeError("it is not a runtimes.session.Engine")


@lru_cache(maxsize=None)
def engine(engine_id: str) -> Engine:
    """Return the adapter of an engine. Raises UsageError, suggesting the nearest name, for an unknown id."""
    known, extensions = engine_ids(), _extensions()
    if engine_id in extensions.found:
        return cast(Engine, extensions.found[engine_id])
    if engine_id in extensions.refused and engine_id not in known:
        raise EngineError(extensions.refused[engine_id], "update or uninstall that package")
    if engine_id not in known:
        near = difflib.get_close_matches(engine_id, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"engines: {', '.join(known)}"
        raise UsageError(f"there is no engine '{engine_id}'", hint)
    module = import_module(f"runtimes.engines.{engine_id}")
    return cast(Engine, module.Adapter())


def tensor_engine(engine_id: str) -> TensorEngine:
    """Return the adapter of a tensor engine. Raises UsageError like `engine`, and for a language-model engine."""
    found = engine(engine_id)
    if not isinstance(found, TensorEngine):
        raise UsageError(f"the engine '{engine_id}' is for language models", _FOR_TEXT)
    return found


def for_format(model_format: str, wanted: str | None = None) -> TensorEngine:
    """Return the engine to open a format with: `wanted`, else the preferred one, else any installed one.

    Raises UsageError if `wanted` does not open the format, and for language models; EngineMissingError, naming the
    extra to install, if no engine for the format is installed.
    """
    return tensor_engine(_for_format(model_format, wanted).id)


def text_engine(model: str, wanted: str | None = None) -> TextEngine:
    """Return the engine for a language model (a GGUF file or a server's URL); errors as in `for_format`."""
    is_address = model.startswith(("http://", "https://"))
    return cast("TextEngine", _for_format("llama-server" if is_address else "gguf", wanted))


def _for_format(model_format: str, wanted: str | None) -> Engine:
    if wanted is not None:
        return _wanted(model_format, engine(wanted))
    first = PREFERRED.get(model_format)
    able = [i for i in engine_ids() if model_format in engine(i).formats]
    able.sort(key=lambda i: i != first)
    if not able:
        raise UsageError(f"no engine opens the format '{model_format}'", f"formats: {', '.join(sorted(PREFERRED))}")
    ready = [i for i in able if is_installed(engine(i))]
    if not ready:
        raise missing(engine(able[0]))
    return engine(ready[0])


def status(engine_id: str) -> EngineStatus:
    """Return whether an engine is installed and its version, without importing the engine."""
    adapter = engine(engine_id)
    installed = is_installed(adapter)
    try:
        version = adapter.version() if installed else None
    except EngineError:
        version = None
    lacks = adapter.lacks() if installed else ""
    return EngineStatus(
        id=adapter.id,
        requires=adapter.requires,
        formats=adapter.formats,
        installed=installed,
        version=version,
        lacks=lacks,
    )


def is_installed(adapter: Engine) -> bool:
    """Return whether the adapter's library can be found, without importing it."""
    if not adapter.requires:
        return True
    return any(is_found(name) for name in adapter.requires.split("|"))


def is_found(module: str) -> bool:
    """Return whether a module can be found. Its parent packages are imported, the module itself is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing or broken
        return False


def missing(adapter: Engine) -> EngineMissingError:
    """Return the error for an adapter whose library is not installed. It names the extra that installs it."""
    return EngineMissingError(f"the engine '{adapter.id}' is not installed", install_hint(adapter.id))


def install_hint(extra: str) -> str:
    """Return the command that installs one of the project's extras, such as an engine's."""
    if extra in _extensions().found:
        return (
            f"install what {_extensions().packages[extra]} needs for it: {engine(extra).requires.replace('|', ' or ')}"
        )
    # With hyphens, as pyproject.toml spells it: pip before 23.3 compares the words as they stand.
    command = f"pip install 'edgeproof[{extra.replace('_', '-')}]'"
    own_package = engine(extra).own_package if extra in engine_ids() else ""
    return f"{own_package}; elsewhere: {command}" if own_package else command


def distribution_version(*names: str) -> str:
    """Return the version of the first installed distribution of these, or "unknown" if none has metadata."""
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


def new_session(artifact: Artifact) -> Session:
    """Open a session of the format's preferred engine. The caller closes it."""
    return open_like_source(for_format(artifact.manifest.format), artifact, RunOptions())


@contextmanager
def open_session(artifact: Artifact) -> Iterator[Session]:
    """Open a session of the format's preferred engine, and close it at the end of the block."""
    session = new_session(artifact)
    try:
        yield session
    finally:
        session.close()
