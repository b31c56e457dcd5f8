"""Time the operators of a TFLite model with the profiler in LiteRT's C library, which its Python package does not wrap.

The library's functions are not a stable interface, and some models break its memory: it runs in a process of its own,
and only the releases in `KNOWN`, with which these calls were tried, are used. Declarations: litert/c in
github.com/google-ai-edge/LiteRT (Apache-2.0).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from ctypes import (
    CDLL,
    CFUNCTYPE,
    Array,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_int,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
    create_string_buffer,
    memmove,
)
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Sequence, Tuple

import numpy as np

from runtimes.arrays import Array as AnyArray
from runtimes.arrays import Arrays, load_arrays, save_arrays
from runtimes.errors import UsageError
from runtimes.measurement.operator_times import WARM_UP_RUNS, OperatorProfile, OperatorTime, means

KNOWN = ("2.3.0",)
_LIBRARY = "libLiteRt.so"
_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_HINT = "convert the model to ONNX or OpenVINO to see the shares of its operators there"
_MAX_RANK = 8
# Kinds of events: an operator of the interpreter, and one of XNNPACK. All others contain these, or are bookkeeping.
_PLACEMENTS = {2: "built-in", 8: "XNNPACK"}


_FEEDS, _RESULT = "feeds.npz", "result.json"
_Timed = Tuple[str, str, float]  # an operator's tag, its placement, and its milliseconds


class _Layout(Structure):
    """LiteRtLayout of litert_layout.h: the rank (with a flag above its 7 bits), sizes and strides."""

    _fields_ = (("rank", c_uint32), ("sizes", c_int * _MAX_RANK), ("strides", c_uint32 * _MAX_RANK))


class _TensorType(Structure):
    """LiteRtRankedTensorType of litert_model_types.h."""

    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(Structure):
    """ProfiledEventData of litert_profiler_event.h; a record of memory usage has three words."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_uint32),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory_before", c_uint64 * 3),
        ("memory_after", c_uint64 * 3),
        ("metadata", c_uint64 * 2),
        ("source", c_uint32),
    )


def profile(model: Path, version: str, threads: int, feeds: Arrays, runs: int) -> OperatorProfile:
    """Run a model with LiteRT's profiler in a process of its own: `runs` times, after a warm-up.

    Raises UsageError for other releases and platforms, and for a model that the library does not run.
    """
    library = _library(version)
    with tempfile.TemporaryDirectory(prefix="edge-profile-") as folder:
        save_arrays(Path(folder) / _FEEDS, feeds)
        command = [sys.executable, "-m", __name__, str(library), str(model), str(threads), str(runs), folder]
        # On a board, packages are in a folder that the worker has added to its path.
        paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            why = lines[-1] if done.returncode > 0 and lines else "its process crashed"
            raise UsageError(f"LiteRT's profiler does not take this model ({why})", _HINT)
        found = json.loads((Path(folder) / _RESULT).read_text(encoding="utf-8"))
    return OperatorProfile(runs, found["total_ms"], [OperatorTime(*one) for one in found["operators"]])


def _library(version: str) -> Path:
    if version not in KNOWN:
        raise UsageError(
            f"the profiler of LiteRT {version or 'of an unknown version'} is not known", f"known: {', '.join(KNOWN)}"
        )
    spec = find_spec("ai_edge_litert")
    path = Path(spec.origin).parent / _LIBRARY if spec is not None and spec.origin else Path(_LIBRARY)
    if not path.is_file():
        raise UsageError(f"LiteRT's package for this platform has no {_LIBRARY}", _HINT)
    return path


def main(library: str, model: str, threads: str, runs: str, folder: str) -> str | None:
    """Write the times of the operators of a model to a file in `folder`, which has its inputs; or return an error."""
    try:
        with ExitStack() as stack:
            feeds = load_arrays(Path(folder) / _FEEDS)
            compiled = _CompiledModel(CDLL(library), stack, Path(model), int(threads), feeds)
            for _ in range(WARM_UP_RUNS):
                compiled.run()
            found = [compiled.timed_run() for _ in range(int(runs))]
        total_ms, operators = sum(seconds for seconds, _ in found) * 1e3, _operators([one for _, one in found])
        if sum(one.ms for one in operators) > total_ms / len(found):
            raise UsageError("it counts the operators of loops and branches twice", _HINT)
    except UsageError as error:
        return error.message
    result = {
        "total_ms": total_ms / len(found),
        "operators": [(one.name, one.type, one.placement, one.ms) for one in operators],
    }
    (Path(folder) / _RESULT).write_text(json.dumps(result), encoding="utf-8")
    return None


def _operators(runs: Sequence[Sequence[_Timed]]) -> list[OperatorTime]:
    """Return the mean of each operator over all runs, which all have the same operators in the same order."""
    times: dict[str, tuple[str, str, float]] = {}
    for events in runs:
        for place, (tag, placement, elapsed_ms) in enumerate(events):
            before = times.get(f"{tag} {place}", ("", "", 0.0))[2]
            times[f"{tag} {place}"] = (tag.split(" (")[0], placement, before + elapsed_ms)
    return means(times, len(runs))


# The library calls it when it releases an option, whose bytes belong to Python.
_KEEP = CFUNCTYPE(None, c_void_p)(lambda _: None)


class _CompiledModel:
    """A model that the C library has loaded for the CPU with its profiler; `stack` releases everything."""

    def __init__(self, library: CDLL, stack: ExitStack, model: Path, threads: int, feeds: Arrays) -> None:
        self._library, self._stack = library, stack
        self._environment = self._create("Environment", c_int(0), None)
        loaded = self._create("ModelFromFile", self._environment, c_char_p(str(model).encode()), destroy="Model")
        options = self._create("Options")
        self._call("SetOptionsHardwareAccelerators", options, c_int(_CPU))
        self._payloads = [
            self._option(options, "runtime_options_string", "enable_profiling = true\n"),
            self._option(options, "xnnpack", f"num_threads = {threads}\n"),
        ]
        self._compiled = self._create("CompiledModel", self._environment, loaded, options)
        self._signature, self._profiler = c_void_p(), c_void_p()
        self._call("GetModelSignature", loaded, c_size_t(0), byref(self._signature))
        self._call("CompiledModelGetProfiler", self._compiled, byref(self._profiler))
        self._inputs = self._allocate_inputs(feeds)
        self._outputs = self._allocate_outputs()

    def _allocate_inputs(self, feeds: Arrays) -> Array[c_void_p]:
        """Give the inputs the sizes of `feeds`, and write them; an input without a feed of its name stays as it is."""
        tensors = self._tensors("Input")
        for place, (name, kind) in enumerate(tensors):
            if name in feeds and self._resize(place, kind.layout, feeds[name].shape):
                kind.layout.sizes[: feeds[name].ndim] = feeds[name].shape
        buffers = self._buffers("Input", [kind for _, kind in tensors])
        for (name, _), buffer in zip(tensors, buffers):
            if name in feeds:
                self._write(name, c_void_p(buffer), np.ascontiguousarray(feeds[name]))
        return buffers

    def _resize(self, place: int, layout: _Layout, shape: Sequence[int]) -> bool:
        """Resize an input of the file's `layout`, if its shape has a free size."""
        if all(size >= 0 for size in layout.sizes[: len(shape)]):
            return False
        sizes = (c_int * len(shape))(*shape)
        at = c_size_t(0), c_size_t(place)
        self._call("CompiledModelResizeInputTensor", self._compiled, *at, sizes, c_size_t(len(shape)))
        return True

    def _write(self, name: str, buffer: c_void_p, values: AnyArray) -> None:
        size, address = c_size_t(), c_void_p()
        self._call("GetTensorBufferSize", buffer, byref(size))
        if size.value < values.nbytes:
            raise UsageError(f"it does not take the input '{name}' in this size", _HINT)
        self._call("LockTensorBuffer", buffer, byref(address), c_int(_WRITE))
        memmove(address, values.ctypes.data, values.nbytes)
        self._call("UnlockTensorBuffer", buffer)

    def _allocate_outputs(self) -> Array[c_void_p]:
        kinds = [kind for _, kind in self._tensors("Output")]
        layouts = (_Layout * len(kinds))()
        count = c_size_t(len(kinds))
        self._call("GetCompiledModelOutputTensorLayouts", self._compiled, c_size_t(0), count, layouts, c_bool(True))
        for kind, layout in zip(kinds, layouts):
            kind.layout = layout
        return self._buffers("Output", kinds)

    def run(self) -> None:
        """Run one inference."""
        counts = c_size_t(len(self._inputs)), c_size_t(len(self._outputs))
        self._call("RunCompiledModel", self._compiled, c_size_t(0), counts[0], self._inputs, counts[1], self._outputs)

    def timed_run(self) -> tuple[float, list[_Timed]]:
        """Run one inference; return its seconds, and each operator with its placement and milliseconds."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        start = time.perf_counter()
        self.run()
        seconds = time.perf_counter() - start
        self._call("StopProfiler", self._profiler)
        count = c_int()
        self._call("GetNumProfilerEvents", self._profiler, byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return seconds, [
            (event.tag.decode("utf-8", "replace"), _PLACEMENTS[event.kind], event.elapsed_us / 1e3)
            for event in events
            if event.kind in _PLACEMENTS
        ]

    def _tensors(self, side: str) -> list[tuple[str, _TensorType]]:
        """Return the name and the type of each tensor of one side ("Input" or "Output")."""
        count, found = c_size_t(), []
        self._call(f"GetNumSignature{side}s", self._signature, byref(count))
        for place in range(count.value):
            tensor, name, kind = c_void_p(), c_char_p(), _TensorType()
            self._call(f"GetSignature{side}TensorByIndex", self._signature, c_size_t(place), byref(tensor))
            self._call("GetTensorName", tensor, byref(name))
            self._call("GetRankedTensorType", tensor, byref(kind))
            found.append(((name.value or b"").decode("utf-8", "replace"), kind))
        return found

    def _buffers(self, side: str, kinds: Sequence[_TensorType]) -> Array[c_void_p]:
        """Allocate the tensors of one side."""
        buffers = (c_void_p * len(kinds))()
        for place, kind in enumerate(kinds):
            at, needs = (c_size_t(0), c_size_t(place)), c_void_p()
            self._call(f"GetCompiledModel{side}BufferRequirements", self._compiled, *at, byref(needs))
            made = self._create(
                "ManagedTensorBufferFromRequirements", self._environment, byref(kind), needs, destroy="TensorBuffer"
            )
            buffers[place] = made.value
        return buffers

    def _option(self, options: c_void_p, identifier: str, text: str) -> Array[Any]:
        """Add an option; return its bytes, which have to stay as long as the options."""
        payload, made = create_string_buffer(text.encode()), c_void_p()
        self._call("CreateOpaqueOptions", c_char_p(identifier.encode()), cast(payload, c_void_p), _KEEP, byref(made))
        self._call("AddOpaqueOptions", options, made)
        return payload

    def _create(self, kind: str, *arguments: Any, destroy: str = "") -> c_void_p:
        """Create an object that is destroyed with the stack."""
        made = c_void_p()
        self._call(f"Create{kind}", *arguments, byref(made))
        release = getattr(self._library, f"LiteRtDestroy{destroy or kind}")
        self._stack.callback(release, made)
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status != 0:
            raise UsageError(f"LiteRt{name} ended with status {status}", _HINT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
