"""PyTorch models that are no exported program yet: told apart here, exported in the converter process.

Three kinds: TorchScript archives, `module:callable` (the user's own code), and model folders of Hugging Face. Each is
exported to a `.pt2` with fixed shapes first and held against the module that it was made from; everything after that
treats them as one.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.source import digest
from runtimes.errors import InputError, UsageError

TORCHSCRIPT, MODULE, HUGGING_FACE = "torchscript", "module", "huggingface"
_SUFFIXES = (".ts", ".torchscript", ".pt", ".pth")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
DTYPES = ("float32", "float16", "float64", "int64", "int32", "uint8", "bool")
_EXPORT = "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"


@dataclass(frozen=True)
class TorchInput:
    """What one argument of a module takes; `name` None where arguments go by their order."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class TorchSource:
    """What is to be exported: `where` is a path or `module:callable`; `trusted` lets it do more than compute."""

    kind: str
    where: str
    inputs: tuple[TorchInput, ...] = ()
    weights: Path | None = None
    trusted: bool = False

    @property
    def name(self) -> str:
        """What the result is called after."""
        return self.where.rpartition(":")[2].rpartition(".")[2] if self.kind == MODULE else Path(self.where).stem

    @property
    def said(self) -> str:
        """What the user should know before it runs."""
        how = ", which runs its Python code" if self.kind == MODULE else ""
        return f"{self.where} is exported to a PyTorch program (.pt2) first{how}"

    def origin(self) -> dict[str, str]:
        """What a manifest says of the source; a module is known by its weights, where they were given."""
        path = self.weights if self.kind == MODULE else Path(self.where)
        sha256 = digest(path) if path is not None else "unknown"
        return {
            "name": self.where if self.kind == MODULE else Path(self.where).name,
            "format": self.kind,
            "sha256": sha256,
        }


def read_input(text: str) -> TorchInput:
    """`1x3x224x224`, `ids=1x128:int64`; UsageError for anything else."""
    found = _INPUT.fullmatch(text)
    dtype = (found and found["dtype"]) or "float32"
    if found is None or dtype not in DTYPES:
        hint = f"write [NAME=]SIZES[:TYPE], such as 1x3x224x224 or ids=1x128:int64; types: {', '.join(DTYPES)}"
        raise UsageError(f"--input {text} cannot be understood", hint)
    return TorchInput(found["name"], tuple(map(int, found["shape"].split("x"))), dtype)


def recognise(
    model: Path, inputs: Sequence[str] = (), weights: Path | None = None, trusted: bool = False
) -> TorchSource | None:
    """What has to be exported first, told without PyTorch; None for every other model.

    InputError for pickles; UsageError for options that do not belong to the model, or are missing.
    """
    kind = _kind(model)
    if kind is None:
        if inputs or weights:
            hint = "leave it out, or give module:callable, TorchScript or a Hugging Face folder"
            raise UsageError(f"{model} says itself what it takes: --input and --weights are not for it", hint)
        return None
    read = tuple(map(read_input, inputs))
    if len({one.name is None for one in read}) > 1:
        raise UsageError("some inputs have a name and some have none", "name all of them, or none")
    if kind != HUGGING_FACE and not read:
        raise UsageError(f"{model} does not say what it takes", "say it with --input 1x3x224x224 (once for each input)")
    if weights is not None and kind != MODULE:
        raise UsageError(f"{model} has its own weights", "leave out --weights")
    if weights is not None and not weights.is_file():
        raise InputError(f"{weights} does not exist", "give a state_dict (.pt) or .safetensors")
    return TorchSource(kind, str(model), read, weights, trusted)


def export(source: TorchSource, folder: Path) -> Path:
    """Write `<name>.pt2` into the existing `folder`. Runs the model; to be called in a converter process."""
    from converters.steps import check_library
    from converters.torch_program import write_program

    check_library("torch", source.where)
    path = folder / f"{source.name}.pt2"
    if source.kind == HUGGING_FACE:
        from converters.hf_source import load_folder

        module, feeds = load_folder(Path(source.where), source.inputs)
        write_program(module, feeds, path, source.where)
        return path
    feeds = example_feeds(source.inputs)
    if source.kind == TORCHSCRIPT:
        from converters.torch_script import load_torchscript, rewritten

        module = load_torchscript(Path(source.where), source.trusted)
        write_program(rewritten(module, feeds, source.where), feeds, path, source.where, module)
    else:
        from converters.torch_module import load_module

        write_program(load_module(source.where, source.weights), feeds, path, source.where)
    return path


def example_feeds(inputs: Sequence[TorchInput]) -> Any:
    """Seeded tensors for a module, by name or in order: floats normal, whole numbers 0 or 1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = [_example(one, generator) for one in inputs]
    if inputs and inputs[0].name is not None:
        return {str(one.name): tensor for one, tensor in zip(inputs, tensors, strict=True)}
    return tensors


def _example(one: TorchInput, generator: Any) -> Any:
    import torch

    dtype = getattr(torch, one.dtype)
    if dtype.is_floating_point:
        return torch.randn(one.shape, generator=generator).to(dtype)
    return torch.randint(0, 2, one.shape, generator=generator).to(dtype)


def _kind(model: Path) -> str | None:
    if model.is_dir():
        others = ("manifest.json", "saved_model.pb")
        is_folder = (model / "config.json").is_file() and not any((model / name).exists() for name in others)
        return HUGGING_FACE if is_folder else None
    if not model.exists():
        return MODULE if _REFERENCE.fullmatch(str(model)) else None
    if model.suffix.lower() not in _SUFFIXES:
        return None
    if _is_torchscript(model):
        return TORCHSCRIPT
    what = f"{model} is no TorchScript: a pickle could run any code and is never opened"
    raise InputError(
        what, f"export it where it was trained: {_EXPORT}; weights alone go with module:callable --weights"
    )


def _is_torchscript(model: Path) -> bool:
    """Whether it is an archive as `torch.jit.save` writes it: code beside data."""
    try:
        with zipfile.ZipFile(model) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)
