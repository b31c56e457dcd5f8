"""Load a module's weights from a file: a state_dict, a checkpoint around one, or safetensors.

Files are read as tensors and plain values only (`weights_only`), never unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import Requirement
from converters.library_calls import first_useful_line, loading
from runtimes.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# Where training code puts the state_dict in a checkpoint, the usual names first.
_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_PREFIXES = ("module.", "model.", "net.", "network.")  # of DataParallel, and of classes around the network
_COMPILED = "_orig_mod."  # torch.compile, around the network or around a part of it
_MAX_DEPTH = 3  # checkpoints inside checkpoints
_NAMED = 3  # keys, in an error message
_UNKNOWN_CLASS = re.compile(r"(?:Unsupported (?:global: GLOBAL|class)|Can only.*?)\s+([\w.]+\.\w+)")


def fill(module: Any, weights: Path, name: str) -> None:
    """Load the file `weights` into the `torch.nn.Module` that `name` returned.

    Raises InputError, with the first keys that differ, unless the file has exactly the tensors of the module.
    """
    wanted = set(module.state_dict())
    state = _fitting(_state_dict(_read(weights), weights, wanted), wanted)
    try:
        found = module.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [first_useful_line(error)]
        raise _mismatch(weights, name, lines[0][:200]) from error
    if found.missing_keys or found.unexpected_keys:
        kinds = {"missing": found.missing_keys, "unexpected": found.unexpected_keys}
        differences = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds.items() if keys]
        raise _mismatch(weights, name, f"of its {len(state)} tensors and the network's, {' and '.join(differences)}")


def _mismatch(weights: Path, name: str, why: str) -> InputError:
    return InputError(f"{weights} does not fit {name}: {why}", "give the state_dict of exactly this network")


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")


def _read(weights: Path) -> Any:
    if weights.suffix == ".safetensors":
        Requirement("safetensors", "table").check(str(weights))
        with loading(weights, "safetensors"):
            from safetensors.torch import load_file

            return load_file(weights)
    import argparse

    import torch

    try:
        # Many checkpoints store their command line next to the tensors; a Namespace only contains values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        found = _UNKNOWN_CLASS.search(str(error))
        holds = f"contains a {found[1]} in addition to tensors" if found else "contains more than tensors, or is broken"
        hint = "where it was trained: torch.save(model.state_dict(), path), or save it as .safetensors"
        raise InputError(f"{weights} {holds}: it is not unpickled", hint) from error


def _state_dict(content: Any, weights: Path, wanted: set[str]) -> dict[str, Tensor]:
    """Return the tensors of the network with the names `wanted`, by name, extracted from the checkpoint around them.

    Raises InputError if there are none, or if several parts of the checkpoint fit and none has a usual name.
    """
    found = [
        (path, state)
        for path, state in _state_dicts(content, _MAX_DEPTH)
        if _is_usual(path) or wanted & set(_fitting(state, wanted))
    ]
    if not found:
        keys = [str(key) for key in content] if isinstance(content, Mapping) else []
        what = f"{weights} holds no state_dict" + (f"; its keys are {_first(keys)}" if keys else "")
        raise InputError(what, f"save the model's state_dict by itself, or under one of: {', '.join(_KEYS)}")
    distances = [len(set(_fitting(state, wanted)) ^ wanted) for _, state in found]
    best = [one for one, distance in zip(found, distances, strict=True) if distance == min(distances)]
    if len(best) > 1 and not _is_usual(best[0][0]):
        names = _first([".".join(path) for path, _ in best])
        raise InputError(f"{weights} holds several networks that fit: {names}", "save the right one by itself")
    return best[0][1]


def _state_dicts(content: Any, depth: int) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield each state_dict in a checkpoint, with the keys that lead to it; those with usual keys come first."""
    if _is_state_dict(content):
        yield (), dict(content)
    elif isinstance(content, Mapping) and depth:
        inner = [(str(key), value) for key, value in content.items()]
        for name, value in sorted(inner, key=lambda one: _KEYS.index(one[0]) if one[0] in _KEYS else len(_KEYS)):
            for path, state in _state_dicts(value, depth - 1):
                yield (name, *path), state


def _is_usual(path: Sequence[str]) -> bool:
    return all(name in _KEYS for name in path)


def _is_state_dict(content: Any) -> bool:
    import torch

    return (
        isinstance(content, Mapping)
        and any(isinstance(value, torch.Tensor) for value in content.values())
        and all(isinstance(key, str) for key in content)
        and not any(isinstance(value, Mapping) for value in content.values())
    )


def _fitting(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Return the tensors with the network's own names, without the prefixes of wrappers used in training."""
    if wanted & set(state):
        return state
    state = {name.replace(_COMPILED, ""): value for name, value in state.items()}
    while not wanted & set(state):
        prefix = next((one for one in _PREFIXES if any(name.startswith(one) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
