"""What every engine looks like from outside: a `Runtime` opens an artifact and gives a `Session` that runs it."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Protocol, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError, UsageError

# Engines believe any number: LiteRT crashes, others use up what the system has.
MOST_THREADS = 512


def _on_stderr(text: str) -> object:
    return print(text, file=sys.stderr)


@dataclass(frozen=True)
class RunOptions:
    """How to run: `threads` None leaves the choice to the engine; `device` is the engine's own word for where.

    `settings` are the engine's own switches, each documented in its adapter's `settings`. `note` hears, in any thread,
    what an engine is at while opening takes it minutes.
    """

    threads: int | None = None
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], object] = field(default=_on_stderr, compare=False)

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}", f"ask for 1 to {MOST_THREADS} threads")


class Session(Protocol):
    """A model that is loaded and ready; a context manager, closed at its end."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What the model takes."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What the model answers."""

    @property
    def threads(self) -> int | None:
        """How many threads an inference uses, where the engine tells."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """One inference: {input name: array} → {output name: array}, in the dtypes and shapes of the specs."""

    def close(self) -> None:
        """Give back what the engine holds; running afterwards raises UsageError."""


class Engine(Protocol):
    """One engine: `id` is its file's name, `formats` what it opens, `requires` the import name of its library."""

    id: str
    formats: tuple[str, ...]
    requires: str
    settings: Mapping[str, str]

    def version(self) -> str:
        """The installed engine's version; EngineMissing when it is not installed."""


class Runtime(Engine, Protocol):
    """An engine that runs tensors; one for language models is a `runtimes.text.TextRuntime`."""

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model. InputError for a broken file, EngineError for a failing engine, UsageError for options."""


class CheckedSession(ABC):
    """A Session that refuses wrong feeds in one line and runs one inference at a time.

    Adapters derive from it and write `_run`, and `_close` where there is something to give back. Engines differ
    in whether they may be called from several threads; the lock makes all of them safe, at 0.1 µs a call.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], threads: int | None = None) -> None:
        self.inputs: Sequence[TensorSpec] = tuple(inputs)
        self.outputs: Sequence[TensorSpec] = tuple(outputs)
        self.threads = threads
        self._expected = [(spec.name, np.dtype(spec.dtype), spec.shape, _is_fixed(spec)) for spec in inputs]
        self._lock = threading.Lock()
        self._closed = False

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """One inference; InputError when the feeds are not what the model takes, UsageError after `close`."""
        self._check(feeds)
        with self._lock:
            if self._closed:
                raise UsageError("the session is closed", "open the artifact again")
            return self._run(feeds)

    def close(self) -> None:
        """Give back what the engine holds; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self) -> CheckedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """One inference with feeds that fit; outputs are new arrays, never the engine's own memory."""

    def _close(self) -> None:  # noqa: B027 - most engines give back on garbage collection
        """Give back what the engine holds."""

    def _check(self, feeds: Mapping[str, Array]) -> None:
        # In the timed path: plain comparisons first, words only for what does not fit.
        for name, dtype, shape, fixed in self._expected:
            array = feeds.get(name)
            if (
                array is None
                or array.dtype != dtype
                or (array.shape != shape if fixed else not _fits(array.shape, shape))
            ):
                raise self._refusal(name, array, dtype, shape)
        if len(feeds) != len(self._expected):
            raise self._unknown(feeds)

    def _refusal(self, name: str, array: Any, dtype: Any, shape: Any) -> InputError:
        wanted = f"{dtype.name}{format_shape(shape)}"
        if array is None:
            return InputError(f"input '{name}' is missing", f"the model takes '{name}' as {wanted}")
        given = f"{array.dtype.name}{format_shape(array.shape)}"
        return InputError(f"input '{name}' is {given}; the model takes {wanted}", "preprocess as the manifest says")

    def _unknown(self, feeds: Mapping[str, Array]) -> InputError:
        known = [spec.name for spec in self.inputs]
        extra = sorted(set(feeds) - set(known))
        return InputError(f"the model has no input '{extra[0]}'", f"its inputs: {', '.join(known)}")


def format_shape(shape: Sequence[object]) -> str:
    """A shape as people write it: [1, 224, 224, 3]."""
    return "[" + ", ".join(str(size) for size in shape) + "]"


def concrete_shape(spec: TensorSpec, free: int = 1) -> tuple[int, ...]:
    """`spec.shape` with every free dimension set to `free`."""
    return tuple(free if isinstance(size, str) else size for size in spec.shape)


def example_feeds(inputs: Sequence[TensorSpec], seed: int = 0) -> Arrays:
    """Seeded feeds that fit `inputs`, free dimensions 1.

    Floats are normal, bytes cover their whole range, wider integers are 0 or 1.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _example(spec, generator) for spec in inputs}


def check_settings(settings: Mapping[str, str], known: Mapping[str, str], engine: str) -> None:
    """UsageError for a setting that the engine does not have."""
    for name in settings:
        if name not in known:
            hint = "its settings: " + ("; ".join(f"{k} ({v})" for k, v in known.items()) or "none")
            raise UsageError(f"{engine} has no setting '{name}'", hint)


def _example(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape, dtype = concrete_shape(spec), np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    # Wide integers are token ids or lengths: small values are valid for every such model that we know of.
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if dtype.itemsize == 1 else (0, 2)
    return generator.integers(low, high, shape).astype(dtype)


def _is_fixed(spec: TensorSpec) -> bool:
    return all(isinstance(size, int) for size in spec.shape)


def _fits(actual: Sequence[int], expected: Sequence[object]) -> bool:
    return len(actual) == len(expected) and all(isinstance(e, str) or a == e for a, e in zip(actual, expected))
