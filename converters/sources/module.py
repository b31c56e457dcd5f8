"""`module:callable`: the user's own Python code builds the network, in the converter process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.base import Requirement
from converters.library_calls import first_useful_line
from converters.options import option
from converters.pytorch.inputs import TorchOptions, check_runs, varied_feeds
from converters.pytorch.weights import fill
from converters.sources.source import ExportingSource, SourceOptions
from runtimes.errors import EngineError, InputError

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, kw_only=True)
class ModuleOptions(TorchOptions):
    """Options of models built by Python code."""

    weights: Path | None = option(
        None, "a state_dict, a checkpoint (.pt, .pth) or .safetensors for the module", metavar="FILE", type=Path
    )


class ModuleSource(ExportingSource):
    """A reference to Python code, such as `package.module:make_network`."""

    id = "module"
    requires = (Requirement("torch"),)
    Options = ModuleOptions

    def recognizes(self, path: Path) -> bool:
        """See `Source`."""
        return not path.exists() and _REFERENCE.fullmatch(str(path)) is not None

    def name_of(self, path: Path) -> str:
        """Return the callable's own name."""
        return str(path).rpartition(":")[2].rpartition(".")[2]

    def describe(self, path: Path) -> str:
        """Return what the user should know before the export, including that their code runs."""
        return f"{super().describe(path)}, which runs its Python code"

    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError without input shapes, and InputError if the file of weights does not exist."""
        own = self.Options.of(options)
        own.read_inputs(path, required=True)
        if own.weights is not None and not own.weights.is_file():
            raise InputError(f"{own.weights} does not exist", "give a state_dict (.pt) or .safetensors")

    def origin(self, path: Path, options: SourceOptions) -> dict[str, str]:
        """Return the description for a manifest; the digest is that of the weights, if there are any."""
        from runtimes.artifact import sha256

        weights = self.Options.of(options).weights
        return {"name": str(path), "format": self.id, "sha256": sha256(weights) if weights else "unknown"}

    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """See `ExportingSource`."""
        from converters.pytorch.torchscript_export import write_exported

        own = self.Options.of(options)
        feeds = varied_feeds(own.read_inputs(path))
        module = _load(str(path), own.weights)
        try:
            return write_exported(module, feeds, folder / self.name_of(path), str(path), own.opset)
        except EngineError:
            check_runs(module, feeds[0], str(path))
            raise


def _load(where: str, weights: Path | None) -> Any:
    """Return the `torch.nn.Module` of `package.module:callable`, with `weights` loaded, in eval mode.

    The callable is a function without arguments, a module class, or a module. The folder that the command was
    started in comes first on the path, as in `python -m`. Raises InputError for everything that fails.
    """
    import torch

    from converters.calibration.generator import import_reference

    torch.manual_seed(0)  # so that a network without weights is the same each time
    module = _call(import_reference(where), where)
    if not isinstance(module, torch.nn.Module):
        what = f"{where} returns a {type(module).__name__}, not a torch.nn.Module"
        raise InputError(what, "name a function that returns the network, or a module class without arguments")
    if weights is not None:
        fill(module, weights, where)
    return module.eval()


def _call(value: Any, where: str) -> Any:
    import torch

    if isinstance(value, torch.nn.Module) or not callable(value):
        return value
    try:
        return value()
    except Exception as error:  # whatever the user's code raises
        hint = "it is called without arguments; --debug shows the traceback"
        raise InputError(f"{where} failed: {first_useful_line(error)}", hint) from error
