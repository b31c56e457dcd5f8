"""The inputs of a PyTorch model as the user names them: name, shape, dtype, and example values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from converters.library_calls import first_useful_line, suppress_output
from converters.sources.source import SourceOptions
from runtimes.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    TorchFeeds: TypeAlias = Mapping[str, Tensor] | Sequence[Tensor]  # by argument name, or in order

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)?(?::(?P<dtype>\w+))?")


DTYPES = ("float32", "float16", "float64", "int64", "int32", "uint8", "bool")


@dataclass(frozen=True, kw_only=True)
class TorchInput:
    """One argument of a module; `name` is None if arguments are passed in order."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class TorchOptions(SourceOptions):
    """Options of PyTorch models that are not exported yet, which do not contain the shapes of their inputs."""

    title = "TorchScript, module:callable and Hugging Face folders"

    def read_inputs(self, model: Path, *, required: bool = False) -> tuple[TorchInput, ...]:
        """Return the inputs in `inputs` and `shapes`.

        Raises UsageError if they are malformed, or missing although `required`.
        """
        read = tuple(map(read_input, (*self.inputs, *self.shapes)))
        if len({one.name is None for one in read}) > 1:
            raise UsageError("some inputs have a name and some have none", "name all of them, or none")
        if required and not read:
            hint = "pass them with --input 1x3x224x224 (once for each input)"
            raise UsageError(f"{model} does not contain the shapes of its inputs", hint)
        return read


def read_input(text: str) -> TorchInput:
    """Parse `1x3x224x224`, `ids=1x128:int64` or, for a scalar, `rate=:int64`. Raises UsageError for anything else."""
    found = _INPUT.fullmatch(text)
    dtype = (found and found["dtype"]) or "float32"
    if found is None or not text or dtype not in DTYPES:
        hint = f"write [NAME=]SIZES[:TYPE], such as 1x3x224x224 or ids=1x128:int64; types: {', '.join(DTYPES)}"
        raise UsageError(f"--input {text} is malformed", hint)
    sizes = tuple(map(int, found["shape"].split("x"))) if found["shape"] else ()
    return TorchInput(name=found["name"], shape=sizes, dtype=dtype)


def example_feeds(inputs: Sequence[TorchInput]) -> Any:
    """Return seeded tensors for a module, by name or in order: normally distributed floats, integers 0 or 1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = [_example(one, generator) for one in inputs]
    if inputs and inputs[0].name is not None:
        return {str(one.name): tensor for one, tensor in zip(inputs, tensors, strict=True)}
    return tensors


def varied_feeds(inputs: Sequence[TorchInput]) -> list[TorchFeeds]:
    """Return `example_feeds`, and others of the same shapes that lead a model with branches down several of them.

    Floats are negated, scaled, constant and zero; whole numbers are other ones of 0 and 1.
    """
    import torch

    first = example_feeds(inputs)
    changes = (lambda x: -x, lambda x: 10 * x, lambda x: 0.01 * x, torch.zeros_like, torch.ones_like, torch.abs)
    return [first, *(_map_feeds(first, change) for change in changes)]


def check_runs(module: Any, feeds: TorchFeeds, name: str) -> None:
    """Raise InputError if the module itself does not run with these inputs, for a conversion that failed."""
    import torch

    try:
        with suppress_output(), torch.no_grad():
            module(**feeds) if isinstance(feeds, Mapping) else module(*feeds)
    except Exception as error:  # whatever the user's code raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # TorchScript's reason is the last line of its stack, after the class.
        raised = [line.partition("Error: ")[2] for line in lines if re.match(r"\w*Error: ", line)]
        why = (raised or [first_useful_line(error)])[-1]
        given = feeds.values() if isinstance(feeds, Mapping) else feeds
        shapes = ", ".join(f"{'x'.join(map(str, one.shape))}:{str(one.dtype).removeprefix('torch.')}" for one in given)
        what = f"{name} does not run with inputs of {shapes}: {why}"
        raise InputError(what, "check the sizes and types in --input, which is given once for each input") from error


def _map_feeds(feeds: TorchFeeds, change: Callable[[Tensor], Tensor]) -> TorchFeeds:
    def one(tensor: Tensor) -> Tensor:
        return change(tensor) if tensor.dtype.is_floating_point else tensor.flip(-1) if tensor.dim() else 1 - tensor

    if isinstance(feeds, Mapping):
        return {name: one(tensor) for name, tensor in feeds.items()}
    return [one(tensor) for tensor in feeds]


def _example(one: TorchInput, generator: Any) -> Any:
    import torch

    dtype = getattr(torch, one.dtype)
    if dtype.is_floating_point:
        return torch.randn(one.shape, generator=generator).to(dtype)
    return torch.randint(0, 2, one.shape, generator=generator).to(dtype)
