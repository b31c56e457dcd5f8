"""`module:callable`: the user's own Python code makes the network, here in the converter process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.quiet import loading, useful_line
from converters.steps import check_library
from converters.user_code import imported
from runtimes.errors import InputError


def load_module(where: str, weights: Path | None) -> Any:
    """The `torch.nn.Module` that `package.module:callable` gives, with `weights` in it, in eval mode.

    The callable is a function without arguments, a module class, or a module. The folder that the command was
    started in comes first on the path, as for `python -m`. InputError for everything that fails on the way.
    """
    import torch

    torch.manual_seed(0)  # a network without weights of its own is the same one each time
    module = _called(imported(where), where)
    if not isinstance(module, torch.nn.Module):
        what = f"{where} gives a {type(module).__name__}, not a torch.nn.Module"
        raise InputError(what, "name a function that returns the network, or a module class without arguments")
    if weights is not None:
        _fill(module, weights, where)
    return module.eval()


def _called(value: Any, where: str) -> Any:
    import torch

    if isinstance(value, torch.nn.Module) or not callable(value):
        return value
    try:
        return value()
    except Exception as error:  # whatever the user's code raises
        hint = "it is called without arguments; --debug shows the whole of it"
        raise InputError(f"{where} failed: {useful_line(error)}", hint) from error


def _fill(module: Any, weights: Path, where: str) -> None:
    state = _tensors(weights)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [useful_line(error)]
        what = f"{weights} does not fit {where}: {lines[0][:200]}"
        raise InputError(what, "give the state_dict of exactly this network") from error


def _tensors(weights: Path) -> Any:
    if weights.suffix == ".safetensors":
        check_library("safetensors", str(weights))
        with loading(weights, "safetensors"):
            from safetensors.torch import load_file

            return load_file(weights)
    import torch

    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        what = f"{weights} holds more than tensors, or is broken: it is not unpickled"
        raise InputError(what, "save it with torch.save(model.state_dict(), path), or as .safetensors") from error
