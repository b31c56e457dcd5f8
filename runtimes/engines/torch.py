"""PyTorch: exported programs (`.pt2`), on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import inspect
import io
import zipfile
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from runtimes.adapters import check_options, choice, import_engine, opening, running, tensor_spec
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EngineError, InputError
from runtimes.pt2_file import pickles, unsafe_content
from runtimes.registry import distribution_version
from runtimes.session import CheckedSession, RunOptions, Session

_DEVICES = ("cpu", "cuda")


class Adapter:
    """Opens programs written by `torch.export.save`; on a GPU, moving inputs and outputs is part of the inference."""

    id = "torch"
    formats: tuple[str, ...] = ("pt2",)
    requires = "torch"
    settings: Mapping[str, str] = {
        "layout": "channels_last: images in memory as NHWC, which convolutions prefer; contiguous: as written",
        "inference_precision": "f32: floats stay 32 bits wide; auto: TF32 convolutions on NVIDIA GPUs that have them",
    }

    def version(self) -> str:
        """The installed distribution's version."""
        return distribution_version("torch")

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; see `Runtime.open`. The number of threads holds for the whole process."""
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
    """The `torch.export.ExportedProgram` in a file; InputError when the file could be more than data."""
    import torch

    _refuse_unsafe(torch, path)
    return torch.export.load(path)


class _TorchSession(CheckedSession):
    def __init__(self, torch: Any, program: Any, device: str, channels_last: bool) -> None:
        nodes = {node.name: node for node in program.graph.nodes}
        signature = program.graph_signature
        super().__init__(
            _specs(torch, nodes, signature.user_inputs),
            _specs(torch, nodes, signature.user_outputs),
            torch.get_num_threads(),
        )
        self._torch = torch
        self._device = device
        self._formats = [_memory_format(torch, spec, channels_last) for spec in self.inputs]
        self._in_spec = program.call_spec.in_spec
        self._module = _module(torch, program, device, channels_last)

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("torch"), self._torch.inference_mode():
            tensors = [self._tensor(feeds[spec.name], way) for spec, way in zip(self.inputs, self._formats)]
            arguments, named = self._torch.utils._pytree.tree_unflatten(tensors, self._in_spec)
            outputs = self._torch.utils._pytree.tree_leaves(self._module(*arguments, **named))
            # Copied: an output may be one of the inputs, or a parameter. Copying from a GPU waits for it.
            return {spec.name: np.array(value.cpu().numpy()) for spec, value in zip(self.outputs, outputs)}

    def _tensor(self, array: Array, memory_format: Any) -> Any:
        # PyTorch warns about memory that it must not write to, though nothing here writes.
        writable = array if array.flags.writeable else array.copy()
        tensor = self._torch.from_numpy(np.ascontiguousarray(writable))
        return tensor.to(device=self._device, memory_format=memory_format)

    def _close(self) -> None:
        del self._module


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
    # One inference at a time has no use for a second pool; it can only be sized before its first use.
    if torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)


def _refuse_unsafe(torch: Any, path: Path) -> None:
    """InputError for an archive of an older layout, or one that could run code when it is loaded."""
    with zipfile.ZipFile(path) as archive:
        if "version" in archive.namelist():
            hint = "save the program again with PyTorch 2.9 or later"
            raise InputError(f"{path} is of an older layout, which cannot be loaded safely", hint)
    # The same reader that loads it: two readers of one zip file may see two different contents.
    reader = torch._C.PyTorchFileReader(str(path))
    records = reader.get_all_records()
    found = unsafe_content(records, reader.get_record) or _unsafe_pickle(torch, records, reader)
    if found is not None:
        hint = "export the model again, with tensors as its only inputs and outputs"
        raise InputError(f"{path} is refused: {found} could run code or is unknown here", hint)


def _unsafe_pickle(torch: Any, records: Sequence[str], reader: Any) -> str | None:
    for name in pickles(records):
        try:
            torch.load(io.BytesIO(reader.get_record(name)), weights_only=True)
        except Exception:  # what the restricted unpickler does not take, the unrestricted one must not see
            return f"the pickle '{name}'"
    return None


def _module(torch: Any, program: Any, device: str, channels_last: bool) -> Any:
    if device != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    # Guards are compiled from text in the file; the specs check the same shapes.
    guarded = "check_guards" in inspect.signature(program.module).parameters
    module = program.module(check_guards=False) if guarded else program.module()
    return module.to(memory_format=torch.channels_last) if channels_last else module


def _memory_format(torch: Any, spec: TensorSpec, channels_last: bool) -> Any:
    return torch.channels_last if channels_last and len(spec.shape) == 4 else torch.preserve_format


def _specs(torch: Any, nodes: Mapping[str, Any], names: Sequence[Any]) -> list[TensorSpec]:
    return [_spec(torch, name, nodes.get(name)) for name in names]


def _spec(torch: Any, name: Any, node: Any) -> TensorSpec:
    value = None if node is None else node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise InputError(f"'{name}' is not a tensor", "export the model with tensors as its only inputs and outputs")
    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return tensor_spec(str(name), str(value.dtype).replace("torch.", ""), sizes)
