"""The ways to run a model that are worth trying: artifacts, engines, numbers of threads, settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge.benchmark.harness import Setup, short_name
from runtimes.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.jobs import EngineOptions
from runtimes.model_files.detect import is_language_model
from runtimes.registry import PREFERRED, engine_ids, is_installed, missing, tensor_engine
from runtimes.session import TensorEngine

# A setting of this name changes only how int8 models are computed.
_INT8 = "int8"


def first_candidates(models: Sequence[Path], runtimes: Sequence[str], threads: Sequence[int]) -> list[Setup]:
    """Return each model with each engine that opens it and each number of threads, with the engines' defaults.

    runtimes: The engines to try; empty: all that are installed.

    Raises EngineMissingError if no engine that opens a model is installed, UsageError for language models.
    """
    return [
        _setup(path, models, engine, count)
        for path in models
        for engine in _engines(Artifact.open(path).manifest.format, runtimes)
        for count in threads
    ]


def board_candidates(models: Sequence[Path], runtimes: Sequence[str], threads: Sequence[int]) -> list[Setup]:
    """Return the same for a board, where pip installs the format's preferred engine, or those that are named."""
    found = []
    for path in models:
        model_format = Artifact.open(path).manifest.format
        named = [tensor_engine(one) for one in runtimes or [PREFERRED[model_format]]]
        able = [engine for engine in named if model_format in engine.formats]
        found += [_setup(path, models, engine, count) for engine in able for count in threads]
    if not found:
        raise UsageError("none of these engines opens the models", "leave out --runtime")
    return found


def variants(setup: Setup) -> Iterator[Setup]:
    """Yield the setup with each setting that its engine declares worth trying, one at a time.

    A setting may change the outputs, so a bare model file, which has nothing to be proven against, has no variants.
    """
    if setup.runtime is None:
        return
    artifact = Artifact.open(setup.artifact)
    if artifact.is_bare:
        return
    for name, values in tensor_engine(setup.runtime).tuned.items():
        if name == _INT8 and artifact.manifest.precision != _INT8:
            continue
        for value in values:
            title = f"{setup.title}, {name}={value}"
            settings = {**setup.options.settings, name: value}
            yield replace(setup, id=title, title=title, options=replace(setup.options, settings=settings))


def thread_counts(cores: int) -> list[int]:
    """Return the numbers of threads to try: powers of two, and all cores."""
    return sorted({cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)})


def _engines(model_format: str, wanted: Sequence[str]) -> list[TensorEngine]:
    if is_language_model(model_format):
        raise UsageError("language models are not tuned", "edge bench MODEL.gguf --threads 1 2 4 compares settings")
    named = {tensor_engine(name).id for name in wanted}
    able = [name for name in engine_ids() if model_format in _formats(name)]
    chosen = [tensor_engine(name) for name in able if not named or name in named]
    ready = [engine for engine in chosen if is_installed(engine)]
    if not ready:
        if chosen:
            raise missing(chosen[0])
        what = f"{' and '.join(sorted(named))} cannot open the format" if named else "no engine opens the format"
        raise InputError(f"{what} {model_format}", f"engines that can: {', '.join(able) or 'none'}")
    return ready


def _formats(name: str) -> Sequence[str]:
    try:
        return tensor_engine(name).formats
    except UsageError:  # for language models
        return ()


def _setup(path: Path, models: Sequence[Path], engine: TensorEngine, threads: int) -> Setup:
    title = f"{short_name(path, models)}, {engine.id}, {threads} thread{'s' * (threads > 1)}"
    return Setup(id=title, title=title, artifact=path, runtime=engine.id, options=EngineOptions(threads))
