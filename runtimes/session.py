"""The engine interface: a `TensorEngine` opens an artifact and returns a `Session` that runs it."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Protocol, Sequence, TypeVar

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.measurement.operator_times import OperatorProfile

# Engines accept any number: with a huge one LiteRT crashes, and others exhaust the system.
MAX_THREADS = 512

_log = logging.getLogger(__name__)
C = TypeVar("C", bound="Closeable")
S = TypeVar("S", bound="Session")


@dataclass(frozen=True)
class RunOptions:
    """How to run a model.

    threads: None leaves the choice to the engine.
    device: The engine's name of the device.
    settings: Engine-specific settings, each documented in its adapter's `settings`.
    note: Called, from any thread, with progress messages while opening takes minutes.
    """

    threads: int | None = None
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], object] = field(default=_log.info, compare=False)

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads is {self.threads}", f"choose 1 to {MAX_THREADS} threads")


class Session(Protocol):
    """A loaded model that is ready to run; a context manager."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The model's inputs."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The model's outputs."""

    @property
    def threads(self) -> int | None:
        """The number of threads of an inference, if the engine reports it."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one inference: {input name: array} → {output name: array}, in the dtypes and shapes of the specs."""

    def close(self) -> None:
        """Release the engine's resources. Running afterwards raises UsageError."""

    def __enter__(self: S) -> S:
        """Return the session."""

    def __exit__(self, *_: object) -> None:
        """Close the session."""


class Closeable(ABC):
    """A context manager that closes itself at the end of the block."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources."""

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Engine(ABC):
    """An engine: a file `runtimes/engines/<id>.py` with a class `Adapter`, which declares the attributes below.

    id: The name of its file.
    formats: The formats that it opens.
    requires: The import name of its library, "" for none. Alternatives are separated by "|".
    settings: Engine-specific settings, {name: description of the values}.
    no_profile: Why its operators cannot be timed, if they cannot.
    own_package: How to install the library on a board whose system ships the build for its GPU.
    board_packages: What pip installs on a board, for an engine of `runtimes/engines/`, which is copied there; empty if
        boards cannot have it.
    """

    id: str
    formats: tuple[str, ...]
    requires: str = ""
    settings: Mapping[str, str] = {}
    own_package: str = ""
    board_packages: tuple[str, ...] = ()
    no_profile: str = "engines that do: litert, onnxruntime, openvino, torch, tensorrt"

    @abstractmethod
    def version(self) -> str:
        """Return the engine's version. Raises EngineMissingError if it is not installed."""

    def lacks(self) -> str:
        """Return what else is missing on this machine, such as a driver library; "" if nothing is."""
        return ""


class TensorEngine(Engine):
    """An engine that runs tensors. Language-model engines derive from `runtimes.llm.session.TextEngine`.

    tuned: Setting → values besides its default that may make inferences faster, which `edge tune` tries.
    """

    tuned: Mapping[str, Sequence[str]] = {}

    @abstractmethod
    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model.

        Raises InputError for a broken file, EngineError if the engine fails, UsageError for invalid options.
        """

    def keeps_state(self, artifact: Artifact) -> bool:
        """Return whether the model keeps a state from one inference to the next, so that each inference changes it."""
        return artifact.keeps_state

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:  # noqa: ARG002
        """Run the model with the engine's profiler. Raises UsageError if the engine has none that edge can read."""
        raise UsageError(f"{self.id} does not report the times of operators", self.no_profile)


class CheckedSession(Closeable):
    """A Session that validates its inputs and runs one inference at a time.

    Adapters implement `_run`, and `_close` if there are resources to release. Not every engine is thread-safe; the
    lock makes all of them so, at 0.1 µs per call.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], threads: int | None = None) -> None:
        self.inputs: Sequence[TensorSpec] = tuple(inputs)
        self.outputs: Sequence[TensorSpec] = tuple(outputs)
        self.threads = threads
        self._expected = [(spec.name, np.dtype(spec.dtype), spec.shape, _is_fixed(spec)) for spec in inputs]
        self._lock = threading.Lock()
        self._closed = False

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one inference. Raises InputError if the feeds do not match the model, UsageError after `close`."""
        self._check(feeds)
        with self._lock:
            if self._closed:
                raise UsageError("the session is closed", "open the artifact again")
            return self._run(feeds)

    def close(self) -> None:
        """Release the engine's resources. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one inference with valid feeds. Outputs are new arrays, never views of the engine's memory."""

    def _close(self) -> None:
        """Release the engine's resources."""

    def _check(self, feeds: Mapping[str, Array]) -> None:
        # This is on the timed path: cheap comparisons first; messages are built only on failure.
        for name, dtype, shape, fixed in self._expected:
            array = feeds.get(name)
            if (
                array is None
                or array.dtype != dtype
                or (array.shape != shape if fixed else not fits(array.shape, shape))
            ):
                raise self._refusal(name, array, dtype, shape)
        if len(feeds) != len(self._expected):
            raise self._unknown(feeds)

    def _refusal(self, name: str, array: Any, dtype: Any, shape: Any) -> InputError:
        expected = f"{dtype.name}{format_shape(shape)}"
        if array is None:
            return InputError(f"input '{name}' is missing", f"the model takes '{name}' as {expected}")
        actual = f"{array.dtype.name}{format_shape(array.shape)}"
        return InputError(
            f"input '{name}' is {actual}; the model takes {expected}", "preprocess the input as the manifest describes"
        )

    def _unknown(self, feeds: Mapping[str, Array]) -> InputError:
        known = [spec.name for spec in self.inputs]
        extra = sorted(set(feeds) - set(known))
        return InputError(f"the model has no input '{extra[0]}'", f"its inputs: {', '.join(known)}")


def format_shape(shape: Sequence[object]) -> str:
    """Format a shape like [1, 224, 224, 3]."""
    return "[" + ", ".join(str(size) for size in shape) + "]"


def concrete_shape(spec: TensorSpec, free: int = 1) -> tuple[int, ...]:
    """Return `spec.shape` with every free dimension set to `free`."""
    return tuple(free if isinstance(size, str) else size for size in spec.shape)


def example_feeds(inputs: Sequence[TensorSpec], seed: int | Sequence[int] = 0) -> Arrays:
    """Return seeded random feeds for `inputs`; free dimensions are 1.

    Floats are normally distributed, bytes cover their whole range, wider integers are 0 or 1.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _example(spec, generator) for spec in inputs}


def check_settings(settings: Mapping[str, str], known: Mapping[str, str], engine: str) -> None:
    """Raise UsageError for a setting that the engine does not have."""
    for name in settings:
        if name not in known:
            hint = "its settings: " + ("; ".join(f"{k} ({v})" for k, v in known.items()) or "none")
            raise UsageError(f"{engine} has no setting '{name}'", hint)


def _example(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape, dtype = concrete_shape(spec), np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.asarray(generator.standard_normal(shape), dtype)
    if dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape), dtype)
    # Wide integers are token ids or lengths: 0 and 1 are valid in every such model that we know of.
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if dtype.itemsize == 1 else (0, 2)
    return np.asarray(generator.integers(low, high, shape), dtype)


def _is_fixed(spec: TensorSpec) -> bool:
    return all(isinstance(size, int) for size in spec.shape)


def fits(actual: Sequence[int], expected: Sequence[object]) -> bool:
    """Return whether a shape is one that a spec allows; a name is a free size."""
    return len(actual) == len(expected) and all(isinstance(e, str) or a == e for a, e in zip(actual, expected))
