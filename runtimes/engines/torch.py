"""PyTorch: exported programs (`.pt2`), on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import inspect
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.artifact.json_fields import JsonValue
from runtimes.engine_support.adapter import check_options, choice, import_engine, opening, running, tensor_spec, unique
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.measurement.operator_times import WARM_UP_RUNS, OperatorProfile, OperatorTime, mean_ms, means
from runtimes.model_files.pt2 import pickles, unsafe_content
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine

_DEVICES = ("cpu", "cuda")


class Adapter(TensorEngine):
    """Opens programs written by `torch.export.save`. On a GPU, an inference includes copying inputs and outputs."""

    id = "torch"
    formats: tuple[str, ...] = ("pt2",)
    requires = "torch"
    board_packages = ("torch", "numpy")
    settings: Mapping[str, str] = {
        "layout": "channels_last: images in memory as NHWC, which convolutions prefer; contiguous: as written",
        "inference_precision": "f32: floats stay 32 bits wide; auto: TF32 convolutions on NVIDIA GPUs that have them",
    }
    tuned: Mapping[str, Sequence[str]] = {"layout": ("contiguous",)}

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return distribution_version("torch")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `TensorEngine.open`. The number of threads applies to the whole process."""
        return self._open(artifact, options)

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:
        """Run the model with PyTorch's profiler; see `TensorEngine.profile`."""
        if options.device != "cpu":
            raise UsageError("only the operators of the CPU are timed", self.no_profile)
        session = self._open(artifact, options)
        for _ in range(WARM_UP_RUNS):
            session.run(feeds)
        profiler = import_engine(self, "torch.profiler")
        with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as found:
            total_ms = mean_ms(lambda: session.run(feeds), runs)
        return OperatorProfile(runs, total_ms, _operators(found.events(), runs))

    def _open(self, artifact: Artifact, options: RunOptions) -> _TorchSession:
        check_options(self, options, _DEVICES)
        channels_last = choice(self, options, "layout", ("channels_last", "contiguous")) == "channels_last"
        tf32 = choice(self, options, "inference_precision", ("f32", "auto")) == "auto"
        torch = import_engine(self, "torch")
        _check_device(torch, options.device)
        torch.backends.cudnn.allow_tf32 = tf32
        _set_threads(torch, options.threads)
        with opening(self.id, artifact.model):
            program = load_program(artifact.model)
            return _TorchSession(torch, program, options.device, channels_last)


def load_program(path: Path) -> Any:
    """Load the `torch.export.ExportedProgram` of a file. Raises InputError if the file may contain code."""
    import torch

    _refuse_unsafe(torch, path)
    return torch.export.load(path)


class _TorchSession(CheckedSession):
    def __init__(self, torch: Any, program: Any, device: str, channels_last: bool) -> None:
        nodes = {node.name: node for node in program.graph.nodes}
        signature = program.graph_signature
        # An output may be None, such as the weights of an attention that does not return them.
        self._places = [place for place, name in enumerate(signature.user_outputs) if name is not None]
        outputs = _specs(torch, nodes, [signature.user_outputs[place] for place in self._places])
        names = unique([spec.name for spec in outputs])
        super().__init__(
            _specs(torch, nodes, signature.user_inputs),
            [replace(spec, name=name) for spec, name in zip(outputs, names)],
            torch.get_num_threads(),
        )
        self._torch = torch
        self._device = device
        self._formats = [_memory_format(torch, spec, channels_last) for spec in self.inputs]
        self._in_spec = program.call_spec.in_spec
        self._module = _module(torch, program, device, channels_last)

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("torch"), self._torch.inference_mode():
            tensors = [self._tensor(feeds[spec.name], layout) for spec, layout in zip(self.inputs, self._formats)]
            arguments, named = self._torch.utils._pytree.tree_unflatten(tensors, self._in_spec)
            leaves = self._torch.utils._pytree.tree_leaves(self._module(*arguments, **named))
            outputs = [leaves[place] for place in self._places]
            # Copied, because an output may alias an input or a parameter. Copying from a GPU also synchronizes.
            return {spec.name: np.array(value.cpu().numpy()) for spec, value in zip(self.outputs, outputs)}

    def _tensor(self, array: Array, memory_format: Any) -> Any:
        # PyTorch warns about read-only memory, though nothing here writes to it.
        writable = array if array.flags.writeable else array.copy()
        tensor = self._torch.from_numpy(
            np.asarray(writable, order="C")
        )  # ascontiguousarray would add an axis to scalars
        return tensor.to(device=self._device, memory_format=memory_format)

    def _close(self) -> None:
        del self._module


def _operators(events: Sequence[Any], runs: int) -> list[OperatorTime]:
    """Return the outermost operators in the order of execution, which is the same in every run; times are in µs."""
    outermost = [event for event in events if event.cpu_parent is None]
    each = len(outermost) // runs
    times: dict[str, tuple[str, str, float]] = {}
    for place, event in enumerate(outermost):
        name = f"{event.name} {place % each + 1}" if each else event.name
        total = times[name][2] if name in times else 0.0
        times[name] = (event.name, "CPU", total + event.cpu_time_total / 1e3)
    return means(times, runs)


def _check_device(torch: Any, device: str) -> None:
    if device == "cpu" or torch.cuda.is_available():
        return
    if torch.version.cuda is None:
        hint = "install a CUDA build: see pytorch.org, Get Started"
        raise EngineError("this build of PyTorch is for the CPU only", hint)
    raise EngineError("PyTorch finds no NVIDIA GPU", "check the GPU and its driver with nvidia-smi, or use the CPU")


def _set_threads(torch: Any, threads: int | None) -> None:
    if threads is None:
        return
    torch.set_num_threads(threads)
    # One inference at a time needs no inter-op pool, which can only be sized before its first use.
    if torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)


def _refuse_unsafe(torch: Any, path: Path) -> None:
    """Raise InputError for an archive with an older layout, or one that could run code when it is loaded."""
    with zipfile.ZipFile(path) as archive:
        if "version" in archive.namelist():
            hint = "edge reads the layout of PyTorch 2.9 and later: save the program again with such a version"
            raise InputError(f"{path} has an older layout, which cannot be loaded safely", hint)
    # Use the reader that will load it: two zip readers may see different contents in one file.
    reader = torch._C.PyTorchFileReader(str(path))
    records = reader.get_all_records()
    found = unsafe_content(records, reader.get_record) or _unsafe_pickle(torch, records, reader)
    if found is not None:
        hint = "export the model again, with tensors as its only inputs and outputs"
        raise InputError(f"{path} is refused: {found} is not allowed in an archive, as it could run code", hint)


def _unsafe_pickle(torch: Any, records: Sequence[str], reader: Any) -> str | None:
    for name in pickles(records):
        try:
            torch.load(io.BytesIO(reader.get_record(name)), weights_only=True)
        except Exception:  # never fall back to the unrestricted unpickler
            return f"the pickle '{name}'"
    return None


def _module(torch: Any, program: Any, device: str, channels_last: bool) -> Any:
    if device != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    # Guards are compiled from source text in the file; the specs check the same shapes.
    guarded = "check_guards" in inspect.signature(program.module).parameters
    module = program.module(check_guards=False) if guarded else program.module()
    for tensor in (*module.parameters(), *module.buffers()) if channels_last else ():
        if tensor.dim() == 4:  # those of 3-D convolutions have no such layout
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def _memory_format(torch: Any, spec: TensorSpec, channels_last: bool) -> Any:
    return torch.channels_last if channels_last and len(spec.shape) == 4 else torch.preserve_format


def _specs(torch: Any, nodes: Mapping[str, JsonValue], names: Sequence[Any]) -> list[TensorSpec]:
    return [_spec(torch, name, nodes.get(name)) for name in names]


def _spec(torch: Any, name: Any, node: Any) -> TensorSpec:
    value = None if node is None else node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise InputError(f"'{name}' is not a tensor", "export the model with tensors as its only inputs and outputs")
    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return tensor_spec(str(name), str(value.dtype).replace("torch.", ""), sizes)
